// Each JavaScript SDK against each provider's protocol. Is told what to ask on its
// standard input, and says what it saw, one line of JSON for each answer.

import { readFileSync } from "node:fs";
import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import OpenAI from "openai";

const [url, key] = process.argv.slice(2);
const { models, schema, question } = JSON.parse(readFileSync(0, "utf8"));
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const google = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url } });

// The OpenAI SDK's accumulators throw when an answer with tools is cut short.
const toolsFor = (model, tools) => (model.includes("finish=length") ? {} : { tools });

async function chat(model, stream) {
  const ask = {
    model,
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: question },
    ],
    reasoning_effort: "medium",
    ...toolsFor(model, [
      { type: "function", function: { name: "weather", parameters: schema } },
    ]),
  };
  let thoughts = "";
  let answer;
  if (stream) {
    const runner = openai.chat.completions.stream({
      ...ask,
      stream_options: { include_usage: true },
    });
    // Of fields that it doesn't know its accumulator keeps the last piece only.
    runner.on("chunk", (chunk) => {
      thoughts += chunk.choices[0]?.delta.reasoning_content ?? "";
    });
    answer = await runner.finalChatCompletion();
  } else {
    answer = await openai.chat.completions.create(ask);
    thoughts = answer.choices[0].message.reasoning_content ?? "";
  }
  const { message, finish_reason } = answer.choices[0];
  return {
    text: message.content ?? "",
    reasoning: thoughts,
    calls: (message.tool_calls ?? []).map((call) => [
      call.function.name,
      JSON.parse(call.function.arguments),
    ]),
    finish: finish_reason,
    tokens: [answer.usage.prompt_tokens, answer.usage.completion_tokens],
  };
}

async function responses(model, stream) {
  const ask = {
    model,
    instructions: "Be brief.",
    input: question,
    reasoning: { effort: "medium", summary: "auto" },
    ...toolsFor(model, [
      { type: "function", name: "weather", parameters: schema, strict: false },
    ]),
  };
  const answer = stream
    ? await openai.responses.stream(ask).finalResponse()
    : await openai.responses.create(ask);
  const calls = answer.output.filter((item) => item.type === "function_call");
  const thoughts = answer.output.filter((item) => item.type === "reasoning");
  const reason = answer.incomplete_details?.reason;
  return {
    text: answer.output_text,
    reasoning: thoughts.flatMap((item) => item.summary.map((part) => part.text)).join(""),
    calls: calls.map((call) => [call.name, JSON.parse(call.arguments)]),
    finish:
      reason === "max_output_tokens" ? "length" : calls.length > 0 ? "tool_calls" : "stop",
    tokens: [answer.usage.input_tokens, answer.usage.output_tokens],
  };
}

async function messages(model, stream) {
  const ask = {
    model,
    max_tokens: 4000,
    system: "Be brief.",
    messages: [{ role: "user", content: question }],
    tools: [{ name: "weather", input_schema: schema }],
    thinking: { type: "adaptive" },
  };
  const answer = stream
    ? await anthropic.messages.stream(ask).finalMessage()
    : await anthropic.messages.create(ask);
  const of = (type) => answer.content.filter((block) => block.type === type);
  const usage = answer.usage;
  const words = { end_turn: "stop", tool_use: "tool_calls", max_tokens: "length" };
  return {
    text: of("text").map((block) => block.text).join(""),
    reasoning: of("thinking").map((block) => block.thinking).join(""),
    calls: of("tool_use").map((block) => [block.name, block.input]),
    finish: words[answer.stop_reason] ?? answer.stop_reason,
    tokens: [
      usage.input_tokens +
        (usage.cache_read_input_tokens ?? 0) +
        (usage.cache_creation_input_tokens ?? 0),
      usage.output_tokens,
    ],
  };
}

async function gemini(model, stream) {
  const ask = {
    model,
    contents: question,
    config: {
      systemInstruction: "Be brief.",
      tools: [{ functionDeclarations: [{ name: "weather", parametersJsonSchema: schema }] }],
      thinkingConfig: { includeThoughts: true, thinkingBudget: 2000 },
    },
  };
  const chunks = [];
  if (stream) {
    for await (const chunk of await google.models.generateContentStream(ask)) chunks.push(chunk);
  } else {
    chunks.push(await google.models.generateContent(ask));
  }
  const candidates = chunks.flatMap((chunk) => chunk.candidates ?? []);
  const parts = candidates.flatMap((candidate) => candidate.content?.parts ?? []);
  const calls = parts.filter((part) => part.functionCall);
  const finish = candidates.map((candidate) => candidate.finishReason).filter(Boolean).at(-1);
  const usage = chunks.map((chunk) => chunk.usageMetadata).filter(Boolean).at(-1);
  const words = { STOP: calls.length > 0 ? "tool_calls" : "stop", MAX_TOKENS: "length" };
  return {
    text: parts.filter((part) => part.text && !part.thought).map((part) => part.text).join(""),
    reasoning: parts.filter((part) => part.text && part.thought).map((part) => part.text).join(""),
    calls: calls.map((part) => [part.functionCall.name, part.functionCall.args]),
    finish: words[finish] ?? finish,
    tokens: [
      usage.promptTokenCount,
      (usage.candidatesTokenCount ?? 0) + (usage.thoughtsTokenCount ?? 0),
    ],
  };
}

const clients = { chat, responses, messages, gemini };
for (const [name, client] of Object.entries(clients)) {
  for (const [what, model] of Object.entries(models)) {
    const [kind, upstream] = what.split(" ");
    for (const stream of [false, true]) {
      const said = `JavaScript ${name} to ${upstream}: ${kind}, ${stream ? "streamed" : "whole"}`;
      try {
        const seen = await client(model, stream);
        console.log(JSON.stringify({ name: said, kind, seen }));
      } catch (error) {
        console.log(JSON.stringify({ name: said, error: String(error?.stack ?? error) }));
      }
    }
  }
}
