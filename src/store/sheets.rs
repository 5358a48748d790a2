//! Tables as sheets of text, for backups: what each row says in the words of the
//! management API, and beside it every column as it is kept, so that nothing is
//! lost on the way back. Tables that are worked out from others are left out.
//!
//! A cell is a number or a text as it is, `\N` for null, true or false. Columns
//! as they are kept are called `plexus.` and their name; a text in them that
//! could be taken for null has one backslash more, and bytes that are no text
//! are written in hexadecimal.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::rc::Rc;

use csv::StringRecord;
use ring::digest;
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, params_from_iter};
use uuid::Uuid;

use super::blocks::MADE;
use super::ledger::first_id;
use super::names::{Interner, Names};

/// A table by the name that the API's backups know it by.
struct Sheet {
    name: &'static str,
    /// Ours, if we keep such a thing.
    table: Option<&'static str>,
    /// Columns for others to read: name, and what is in it as SQL.
    shown: &'static [(&'static str, &'static str)],
    /// How rows without our columns are read.
    foreign: &'static [(&'static str, Source)],
    /// Columns of theirs that say nothing which the others don't.
    idle: &'static [&'static str],
}

/// Where a column's value comes from in a row that is not ours.
enum Source {
    /// The first of these columns that has something, in that form.
    Of(&'static [&'static str], Form),
    /// A number.
    Fixed(i64),
    /// That text, in `names`, if the column has none.
    NameOr(&'static str, &'static str),
    /// That text, if the column has none.
    TextOr(&'static str, &'static str),
    /// The same, kept as bytes.
    BytesOr(&'static str, &'static str),
}

/// How a cell is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As the column's type has it.
    Kept,
    Whole,
    Text,
    /// Text that is kept as bytes.
    Bytes,
    Name,
    Flag,
    Uuid,
    /// US dollars, kept as nano-dollars.
    Dollars,
    /// Milliseconds, kept as microseconds.
    Millis,
    /// A moment, as milliseconds since the epoch or ISO 8601.
    Moment,
    /// The same, as the id of a usage row.
    UsageId,
}

const NULL: &str = "\\N";
const KEPT: &str = "plexus.";

/// Tables that hold texts for the others, that a backup has elsewhere, or that say
/// how far counting has come.
const LEFT_OUT: [&str; 4] = ["names", "secrets", "pending_config", "folded"];

macro_rules! name_of {
    ($column:literal) => {
        concat!("(SELECT text FROM names WHERE names.id = ", $column, ")")
    };
}

const NONE: Sheet = Sheet {
    name: "",
    table: None,
    shown: &[],
    foreign: &[],
    idle: &[],
};

/// The sheets of every backup, in their order.
static SHEETS: [Sheet; 13] = [
    Sheet {
        name: "request_usage",
        table: Some("usage"),
        shown: &[
            ("id", "id"),
            ("requestId", "request_id"),
            ("clientRequestId", "client_request_id"),
            ("date", "strftime('%Y-%m-%dT%H:%M:%fZ', (id >> 20) / 1000.0, 'unixepoch')"),
            ("sourceIp", "source_ip"),
            ("apiKey", name_of!("key_id")),
            ("attribution", "attribution"),
            ("incomingApiType", name_of!("incoming_id")),
            ("provider", name_of!("provider_id")),
            ("attemptCount", "attempts"),
            ("retryHistory", "retry_history"),
            ("incomingModelAlias", name_of!("alias_id")),
            ("canonicalModelName", name_of!("canonical_id")),
            ("selectedModelName", name_of!("model_id")),
            ("finalAttemptProvider", name_of!("provider_id")),
            ("finalAttemptModel", name_of!("model_id")),
            ("allAttemptedProviders", "all_attempted"),
            ("outgoingApiType", name_of!("outgoing_id")),
            ("tokensInput", "iif(input IS NULL AND tool_prompt IS NULL, NULL, coalesce(input, 0) + coalesce(tool_prompt, 0))"),
            ("tokensOutput", "output"),
            ("tokensReasoning", "reasoning"),
            ("tokensCached", "cache_read"),
            (
                "tokensCacheWrite",
                "iif(coalesce(cache_write_short, cache_write_long, cache_write_other) IS NULL, NULL,
                 coalesce(cache_write_short, 0) + coalesce(cache_write_long, 0) + coalesce(cache_write_other, 0))",
            ),
            ("tokensEstimated", "tokens_estimated"),
            ("costInput", "cost_input / 1e9"),
            ("costOutput", "cost_output / 1e9"),
            ("costCached", "cost_cached / 1e9"),
            ("costCacheWrite", "cost_cache_write / 1e9"),
            ("costTotal", "cost_total / 1e9"),
            ("costSource", "cost_source"),
            ("costMetadata", "cost_metadata"),
            ("startTime", "id >> 20"),
            ("durationMs", "duration_us / 1e3"),
            ("ttftMs", "ttft_us / 1e3"),
            ("isStreamed", "iif(streamed, 'true', 'false')"),
            ("isPassthrough", "iif(passthrough, 'true', 'false')"),
            ("responseStatus", name_of!("status_id")),
            ("createdAt", "id >> 20"),
            ("toolCallsCount", "tool_calls"),
            ("finishReason", name_of!("finish_id")),
        ],
        foreign: &[
            ("id", Source::Of(&["startTime", "createdAt", "date"], Form::UsageId)),
            ("request_id", Source::Of(&["requestId"], Form::Uuid)),
            ("key_id", Source::Of(&["apiKey"], Form::Name)),
            ("provider_id", Source::Of(&["provider", "finalAttemptProvider"], Form::Name)),
            ("model_id", Source::Of(&["selectedModelName", "finalAttemptModel"], Form::Name)),
            ("alias_id", Source::Of(&["incomingModelAlias"], Form::Name)),
            ("canonical_id", Source::Of(&["canonicalModelName"], Form::Name)),
            ("incoming_id", Source::NameOr("incomingApiType", "chat")),
            ("outgoing_id", Source::Of(&["outgoingApiType"], Form::Name)),
            ("status_id", Source::NameOr("responseStatus", "pending")),
            ("finish_id", Source::Of(&["finishReason"], Form::Name)),
            ("http_status", Source::Fixed(0)),
            ("attempts", Source::Of(&["attemptCount"], Form::Whole)),
            ("streamed", Source::Of(&["isStreamed"], Form::Flag)),
            ("passthrough", Source::Of(&["isPassthrough"], Form::Flag)),
            ("has_error", Source::Fixed(0)),
            ("tokens_estimated", Source::Of(&["tokensEstimated"], Form::Flag)),
            ("duration_us", Source::Of(&["durationMs"], Form::Millis)),
            ("ttft_us", Source::Of(&["ttftMs"], Form::Millis)),
            ("input", Source::Of(&["tokensInput"], Form::Whole)),
            ("cache_read", Source::Of(&["tokensCached"], Form::Whole)),
            ("cache_write_other", Source::Of(&["tokensCacheWrite"], Form::Whole)),
            ("output", Source::Of(&["tokensOutput"], Form::Whole)),
            ("reasoning", Source::Of(&["tokensReasoning"], Form::Whole)),
            ("tool_calls", Source::Of(&["toolCallsCount"], Form::Whole)),
            ("cost_input", Source::Of(&["costInput"], Form::Dollars)),
            ("cost_output", Source::Of(&["costOutput"], Form::Dollars)),
            ("cost_cached", Source::Of(&["costCached"], Form::Dollars)),
            ("cost_cache_write", Source::Of(&["costCacheWrite"], Form::Dollars)),
            ("cost_total", Source::Of(&["costTotal"], Form::Dollars)),
            ("cost_source", Source::Of(&["costSource"], Form::Text)),
            ("cost_metadata", Source::Of(&["costMetadata"], Form::Text)),
            ("source_ip", Source::Of(&["sourceIp"], Form::Text)),
            ("attribution", Source::Of(&["attribution"], Form::Text)),
            ("client_request_id", Source::Of(&["clientRequestId"], Form::Text)),
            ("all_attempted", Source::Of(&["allAttemptedProviders"], Form::Text)),
            ("retry_history", Source::Of(&["retryHistory"], Form::Text)),
        ],
        idle: &["id", "date", "createdAt", "tokensPerSec", "finalAttemptProvider", "finalAttemptModel"],
    },
    Sheet {
        name: "provider_cooldowns",
        table: Some("cooldowns"),
        shown: &[
            ("provider", "provider"),
            ("model", "model"),
            ("expiry", "until_ms"),
            ("consecutiveFailures", "failures"),
            ("lastError", "message"),
        ],
        foreign: &[
            ("provider", Source::TextOr("provider", "")),
            ("model", Source::TextOr("model", "")),
            ("until_ms", Source::Of(&["expiry"], Form::Moment)),
            ("failures", Source::Of(&["consecutiveFailures"], Form::Whole)),
            ("limited", Source::Fixed(0)),
            ("message", Source::TextOr("lastError", "")),
        ],
        idle: &["createdAt"],
    },
    Sheet {
        name: "debug_logs",
        table: Some("captures"),
        shown: &[
            ("id", "id"),
            ("requestId", "request_id"),
            ("apiKey", "key"),
            ("rawRequest", "CAST(request AS TEXT)"),
            ("transformedRequest", "CAST(sent AS TEXT)"),
            ("rawResponse", "CAST(received AS TEXT)"),
            ("transformedResponse", "CAST(iif(same, received, answer) AS TEXT)"),
            ("responseStatus", "status"),
            ("createdAt", "created_ms"),
        ],
        foreign: &[
            ("request_id", Source::Of(&["requestId"], Form::Uuid)),
            ("created_ms", Source::Of(&["createdAt"], Form::Moment)),
            ("key", Source::Of(&["apiKey"], Form::Text)),
            ("status", Source::Of(&["responseStatus"], Form::Whole)),
            // Worked out when all rows are there.
            ("size", Source::Fixed(0)),
            ("same", Source::Fixed(0)),
            ("about", Source::BytesOr("", "{}")),
            ("request", Source::Of(&["rawRequest"], Form::Bytes)),
            ("sent", Source::Of(&["transformedRequest"], Form::Bytes)),
            ("received", Source::Of(&["rawResponse"], Form::Bytes)),
            ("answer", Source::Of(&["transformedResponse"], Form::Bytes)),
        ],
        idle: &["id"],
    },
    Sheet {
        name: "inference_errors",
        table: Some("errors"),
        shown: &[
            ("id", "id"),
            ("requestId", "request_id"),
            ("date", "strftime('%Y-%m-%dT%H:%M:%fZ', date_ms / 1000.0, 'unixepoch')"),
            ("apiKey", name_of!("key_id")),
            ("errorMessage", "message"),
            ("errorStack", "NULL"),
            ("details", "details"),
            ("createdAt", "date_ms"),
        ],
        foreign: &[
            ("request_id", Source::Of(&["requestId"], Form::Uuid)),
            ("date_ms", Source::Of(&["date", "createdAt"], Form::Moment)),
            ("key_id", Source::Of(&["apiKey"], Form::Name)),
            ("message", Source::TextOr("errorMessage", "")),
            ("details", Source::TextOr("details", "{}")),
        ],
        idle: &["id", "createdAt"],
    },
    Sheet { name: "provider_performance", ..NONE },
    Sheet { name: "quota_state", ..NONE },
    Sheet { name: "meter_snapshots", ..NONE },
    Sheet { name: "quota_snapshots", ..NONE },
    Sheet { name: "mcp_request_usage", ..NONE },
    Sheet { name: "mcp_debug_logs", ..NONE },
    Sheet {
        name: "responses",
        table: Some("responses"),
        shown: &[
            ("id", "id"),
            ("object", "'response'"),
            ("createdAt", "created_ms / 1000"),
            ("status", "json_extract(CAST(response AS TEXT), '$.status')"),
            ("model", "json_extract(CAST(response AS TEXT), '$.model')"),
            ("outputItems", "json_extract(CAST(response AS TEXT), '$.output')"),
            ("previousResponseId", "previous"),
            ("plexusProvider", "provider"),
        ],
        ..NONE
    },
    Sheet { name: "conversations", ..NONE },
    Sheet { name: "response_items", ..NONE },
];

/// Sheets of every backup, in their order.
pub fn contract_sheets() -> impl Iterator<Item = &'static str> {
    SHEETS.iter().map(|sheet| sheet.name)
}

/// Why rows of a foreign sheet are not taken over.
fn reason(name: &str) -> &'static str {
    match name {
        "provider_performance" => "worked out again from the usage rows",
        "responses" | "conversations" | "response_items" => "the rows don't say whose they are",
        _ => "kept in another form here",
    }
}

/// Longest row of a sheet, in bytes: a captured request may be large.
const LONGEST_ROW: u64 = 256 << 20;

/// What is wrong with a sheet, or with the disk below it.
#[derive(Debug)]
pub enum SheetError {
    /// What was found, in which row, and what was wanted.
    Wrong(String),
    /// The archive can't be read, or the disk can't be written.
    Io(std::io::Error),
    /// What SQLite said.
    Database(String),
}

impl fmt::Display for SheetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(message) => f.write_str(message),
            Self::Io(error) => error.fmt(f),
            Self::Database(message) => write!(f, "the database refused: {message}"),
        }
    }
}

impl std::error::Error for SheetError {}

impl From<std::io::Error> for SheetError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rusqlite::Error> for SheetError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<csv::Error> for SheetError {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => Self::Io(error),
            csv::ErrorKind::Utf8 { pos, .. } => {
                let line = pos.map_or(0, |pos| pos.line());
                Self::Wrong(format!("line {line}: found bytes that are not UTF-8"))
            }
            csv::ErrorKind::UnequalLengths {
                pos,
                expected_len,
                len,
            } => {
                let line = pos.map_or(0, |pos| pos.line());
                Self::Wrong(format!(
                    "line {line}: found {len} cells, wanted {expected_len} as in the first line"
                ))
            }
            other => Self::Wrong(format!("found something that is no CSV: {other:?}")),
        }
    }
}

/// The sheets that the database fills: the contract's first, then our own
/// tables.
pub(super) fn names(connection: &Connection) -> Result<Vec<String>, SheetError> {
    let mut names: Vec<String> = contract_sheets().map(str::to_owned).collect();
    names.extend(own_tables(connection)?);
    Ok(names)
}

/// All tables that a restore empties.
pub(super) fn tables(connection: &Connection) -> Result<Vec<String>, SheetError> {
    let kept_rows = SHEETS.iter().filter_map(|sheet| sheet.table);
    let tables = kept_rows.chain(MADE).chain(["names"]);
    let mut tables: Vec<String> = tables.map(str::to_owned).collect();
    let own = own_tables(connection)?.into_iter();
    tables.extend(own.filter_map(|sheet| sheet.strip_prefix("plexus_").map(str::to_owned)));
    Ok(tables)
}

/// Tables without a sheet in the contract. Their sheets are called
/// `plexus_` and their name.
fn own_tables(connection: &Connection) -> Result<Vec<String>, SheetError> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )?;
    let all = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut own = Vec::new();
    for name in all {
        let name = name?;
        let known = SHEETS.iter().any(|sheet| sheet.table == Some(&name));
        let left_out = LEFT_OUT.contains(&&*name) || MADE.contains(&&*name);
        if !known && !left_out {
            own.push(format!("plexus_{name}"));
        }
    }
    Ok(own)
}

/// A sheet of that name, and the table behind it.
fn find(
    connection: &Connection,
    name: &str,
) -> Result<Option<(&'static Sheet, Option<String>)>, SheetError> {
    if let Some(sheet) = SHEETS.iter().find(|sheet| sheet.name == name) {
        return Ok(Some((sheet, sheet.table.map(str::to_owned))));
    }
    let own = own_tables(connection)?;
    let table = own.iter().find(|own| *own == name);
    Ok(table.map(|table| (&NONE, table.strip_prefix("plexus_").map(str::to_owned))))
}

/// A column of a table, as SQLite knows it.
struct Column {
    name: String,
    kind: String,
    required: bool,
}

impl Column {
    /// Whether it refers to `names`; see the schema.
    fn is_name(&self) -> bool {
        self.kind == "INTEGER" && self.name.ends_with("_id")
    }
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<Column>, SheetError> {
    let mut statement = connection.prepare(
        "SELECT name, upper(type), \"notnull\" OR pk, dflt_value FROM pragma_table_info(?1)",
    )?;
    let rows = statement.query_map([table], |row| {
        let otherwise: Option<String> = row.get(3)?;
        Ok(Column {
            name: row.get(0)?,
            kind: row.get(1)?,
            required: row.get::<_, bool>(2)? && otherwise.is_none(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Writes all rows of a sheet; returns how many they are. Without any, not even
/// the first line is written.
pub(super) fn write(
    connection: &Connection,
    name: &str,
    out: &mut dyn Write,
) -> Result<u64, SheetError> {
    let Some((sheet, Some(table))) = find(connection, name)? else {
        return Ok(0);
    };
    let kept = columns(connection, &table)?;
    let kept_sql = kept.iter().map(|column| match column.is_name() {
        true => format!(
            "(SELECT text FROM names WHERE names.id = {table}.\"{}\")",
            column.name
        ),
        false => format!("{table}.\"{}\"", column.name),
    });
    let shown_sql = sheet.shown.iter().map(|(_, sql)| (*sql).to_owned());
    let list: Vec<String> = shown_sql.chain(kept_sql).collect();
    let mut statement = connection.prepare(&format!("SELECT {} FROM {table}", list.join(", ")))?;
    let mut rows = statement.query([])?;
    let mut sheet_out = csv::WriterBuilder::new().from_writer(out);
    let mut count = 0;
    while let Some(row) = rows.next()? {
        if count == 0 {
            let shown = sheet.shown.iter().map(|(name, _)| (*name).to_owned());
            let kept = kept.iter().map(|column| format!("{KEPT}{}", column.name));
            sheet_out.write_record(shown.chain(kept))?;
        }
        count += 1;
        for at in 0..list.len() {
            sheet_out.write_field(cell(row.get_ref(at)?, at >= sheet.shown.len()))?;
        }
        sheet_out.write_record(None::<&[u8]>)?;
    }
    sheet_out.flush()?;
    Ok(count)
}

/// A value as a cell; `kept` says that it will be read back as it was.
fn cell(value: ValueRef<'_>, kept: bool) -> String {
    match value {
        ValueRef::Null => NULL.to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            match kept && is_escaped(&text) {
                true => format!("\\{text}"),
                false => text.into_owned(),
            }
        }
        ValueRef::Blob(bytes) if kept => hex(bytes),
        ValueRef::Blob(bytes) => match Uuid::from_slice(bytes) {
            Ok(id) => id.to_string(),
            Err(_) => hex(bytes),
        },
    }
}

/// Whether a text is `\N`, or that with more backslashes.
fn is_escaped(text: &str) -> bool {
    text.strip_suffix('N')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte == b'\\'))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)]);
    digits.collect()
}

/// What became of one sheet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Rows written.
    pub rows: u64,
    /// What was not taken over: how often, and what.
    pub left_out: Vec<(u64, String)>,
}

/// Takes sheets into the database, or only looks whether they could be.
pub(super) struct Intake<'a> {
    connection: &'a Connection,
    /// Where texts get their numbers; without it nothing is written.
    names: Option<Interner<'a>>,
}

impl<'a> Intake<'a> {
    /// One that writes. Nothing of what was there must be left.
    pub(super) fn writing(
        connection: &'a Connection,
        names: &'a mut Names,
    ) -> Result<Self, SheetError> {
        Ok(Self {
            connection,
            names: Some(names.within(connection)?),
        })
    }

    /// One that only looks.
    pub(super) const fn looking(connection: &'a Connection) -> Self {
        Self {
            connection,
            names: None,
        }
    }

    /// Reads a whole sheet.
    pub(super) fn sheet(&mut self, name: &str, from: &mut dyn Read) -> Result<Taken, SheetError> {
        let place = |error: SheetError| match error {
            SheetError::Wrong(message) => SheetError::Wrong(format!("{name}.csv: {message}")),
            other => other,
        };
        self.rows(name, from).map_err(place)
    }

    fn rows(&mut self, name: &str, from: &mut dyn Read) -> Result<Taken, SheetError> {
        let used = Rc::new(Cell::new(0));
        let from = Measured {
            from,
            used: Rc::clone(&used),
        };
        let mut reader = csv::Reader::from_reader(from);
        let header = reader.headers()?.clone();
        let Some((sheet, table)) = find(self.connection, name)? else {
            return Err(SheetError::Wrong("this table is not known".to_owned()));
        };
        let plan = match &table {
            Some(table) => Plan::of(self.connection, sheet, table, &header)?,
            None => None,
        };
        let mut taken = Taken::default();
        let mut unread: HashMap<usize, u64> = HashMap::new();
        let mut skipped = 0;
        let mut twice = 0;
        let mut record = StringRecord::new();
        let mut insert = match &plan {
            Some(plan) => Some(self.connection.prepare(&plan.insert)?),
            None => None,
        };
        while reader.read_record(&mut record)? {
            used.set(0);
            let (Some(plan), Some(insert)) = (&plan, &mut insert) else {
                skipped += 1;
                continue;
            };
            let line = record.position().map_or(0, csv::Position::line);
            let values = plan.values(&record, taken.rows, &mut self.names);
            let values = values.map_err(|error| match error {
                SheetError::Wrong(message) => SheetError::Wrong(format!("line {line}: {message}")),
                other => other,
            })?;
            for at in &plan.unread {
                if record
                    .get(*at)
                    .is_some_and(|cell| cell != NULL && !cell.is_empty())
                {
                    *unread.entry(*at).or_default() += 1;
                }
            }
            if self.names.is_some() && insert.execute(params_from_iter(values))? == 0 {
                twice += 1;
            } else {
                taken.rows += 1;
            }
        }
        taken.left_out = left_out(name, &header, skipped, twice, &unread);
        Ok(taken)
    }
}

/// What was not taken over, in words.
fn left_out(
    name: &str,
    header: &StringRecord,
    skipped: u64,
    twice: u64,
    unread: &HashMap<usize, u64>,
) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    if skipped > 0 {
        all.push((skipped, format!("rows of {name}: {}", reason(name))));
    }
    if twice > 0 {
        all.push((twice, format!("rows of {name} that are there twice")));
    }
    for (at, count) in unread {
        let column = header.get(*at).unwrap_or_default();
        all.push((*count, format!("values of {name}.{column}: not kept here")));
    }
    all
}

/// How the rows of one sheet become rows of a table.
struct Plan {
    insert: String,
    cells: Vec<Binding>,
    /// Columns of the sheet that nothing is made from.
    unread: Vec<usize>,
}

struct Binding {
    column: Column,
    at: Vec<usize>,
    form: Form,
    otherwise: Otherwise,
}

#[derive(Clone, Copy)]
enum Otherwise {
    Null,
    Number(i64),
    Text(&'static str),
    Name(&'static str),
}

impl Plan {
    /// `None` when the rows of such a sheet can't be taken over.
    fn of(
        connection: &Connection,
        sheet: &Sheet,
        table: &str,
        header: &StringRecord,
    ) -> Result<Option<Self>, SheetError> {
        let columns = columns(connection, table)?;
        let ours = header.iter().any(|name| name.starts_with(KEPT));
        if !ours && sheet.foreign.is_empty() {
            return Ok(None);
        }
        let place = |name: &str| header.iter().position(|found| found == name);
        let mut cells = Vec::new();
        for column in columns {
            let binding = match ours {
                true => place(&format!("{KEPT}{}", column.name)).map(|at| Binding {
                    form: if column.is_name() {
                        Form::Name
                    } else {
                        Form::Kept
                    },
                    column,
                    at: vec![at],
                    otherwise: Otherwise::Null,
                }),
                false => foreign(sheet, column, &place),
            };
            cells.extend(binding);
        }
        let read = |at: usize| {
            let name = header.get(at).unwrap_or_default();
            cells.iter().any(|cell| cell.at.contains(&at))
                || sheet.idle.contains(&name)
                || (ours && !name.starts_with(KEPT))
        };
        let unread = (0..header.len()).filter(|at| !read(*at)).collect();
        let names: Vec<String> = cells
            .iter()
            .map(|cell| format!("\"{}\"", cell.column.name))
            .collect();
        let insert = format!(
            "INSERT OR IGNORE INTO {table} ({}) VALUES ({})",
            names.join(", "),
            vec!["?"; names.len()].join(", ")
        );
        Ok(Some(Self {
            insert,
            cells,
            unread,
        }))
    }

    fn values(
        &self,
        record: &StringRecord,
        number: u64,
        names: &mut Option<Interner<'_>>,
    ) -> Result<Vec<Sql>, SheetError> {
        let mut values = Vec::with_capacity(self.cells.len());
        for cell in &self.cells {
            let value = cell.value(record, number, names)?;
            if value == Sql::Null && cell.column.required {
                let wanted = &cell.column.name;
                return Err(SheetError::Wrong(format!(
                    "found nothing for {wanted}, which every row has"
                )));
            }
            values.push(value);
        }
        Ok(values)
    }
}

fn foreign(
    sheet: &Sheet,
    column: Column,
    place: &dyn Fn(&str) -> Option<usize>,
) -> Option<Binding> {
    let (_, source) = sheet
        .foreign
        .iter()
        .find(|(name, _)| *name == column.name)?;
    let at = |names: &[&str]| names.iter().filter_map(|name| place(name)).collect();
    let (at, form, otherwise) = match source {
        Source::Of(names, form) => {
            let zero = column.required && matches!(form, Form::Whole | Form::Flag | Form::Millis);
            let otherwise = if zero {
                Otherwise::Number(0)
            } else {
                Otherwise::Null
            };
            (at(names), *form, otherwise)
        }
        Source::Fixed(number) => (Vec::new(), Form::Whole, Otherwise::Number(*number)),
        Source::NameOr(name, text) => (at(&[*name]), Form::Name, Otherwise::Name(text)),
        Source::TextOr(name, text) => (at(&[*name]), Form::Text, Otherwise::Text(text)),
        Source::BytesOr(name, text) => (at(&[*name]), Form::Bytes, Otherwise::Text(text)),
    };
    Some(Binding {
        column,
        at,
        form,
        otherwise,
    })
}

impl Binding {
    fn value(
        &self,
        record: &StringRecord,
        number: u64,
        names: &mut Option<Interner<'_>>,
    ) -> Result<Sql, SheetError> {
        let blank_is_null = !matches!(
            self.form,
            Form::Text | Form::Bytes | Form::Name | Form::Kept
        );
        let found = self.at.iter().filter_map(|at| record.get(*at));
        let mut found = found.filter(|cell| *cell != NULL && !(blank_is_null && cell.is_empty()));
        let mut name = |text: &str| match names {
            Some(names) => names.id(text).map(Sql::Integer),
            None => Ok(Sql::Integer(0)),
        };
        let Some(text) = found.next() else {
            return Ok(match self.otherwise {
                Otherwise::Null => Sql::Null,
                Otherwise::Number(number) => Sql::Integer(number),
                Otherwise::Text(text) if self.form == Form::Bytes => Sql::Blob(text.into()),
                Otherwise::Text(text) => Sql::Text(text.to_owned()),
                Otherwise::Name(text) => name(text)?,
            });
        };
        let value = match self.form {
            Form::Name => return Ok(name(unescaped(text))?),
            Form::Kept => kept(text, &self.column.kind),
            Form::Text => Some(Sql::Text(text.to_owned())),
            Form::Bytes => Some(Sql::Blob(text.into())),
            Form::Whole => whole(text),
            Form::Flag => flag(text),
            Form::Uuid => Some(Sql::Blob(request_id(text))),
            Form::Dollars => scaled(text, 1e9),
            Form::Millis => scaled(text, 1e3),
            Form::Moment => moment(text).map(Sql::Integer),
            Form::UsageId => moment(text).map(|ms| {
                let apart = i64::try_from(number % (1 << 20)).unwrap_or(0);
                Sql::Integer(first_id(ms) | apart)
            }),
        };
        value.ok_or_else(|| {
            let short: String = text.chars().take(40).collect();
            let wanted = match self.form {
                Form::Flag => "true or false",
                Form::Moment | Form::UsageId => "a time",
                _ => "a number",
            };
            SheetError::Wrong(format!(
                "{}: found {short:?}, wanted {wanted}",
                self.column.name
            ))
        })
    }
}

fn unescaped(text: &str) -> &str {
    match is_escaped(text) {
        true => text.strip_prefix('\\').unwrap_or(text),
        false => text,
    }
}

/// A cell of ours as its column's type has it.
fn kept(text: &str, kind: &str) -> Option<Sql> {
    match kind {
        "INTEGER" => text.parse().ok().map(Sql::Integer),
        "REAL" => text.parse().ok().map(Sql::Real),
        "BLOB" => bytes(text).map(Sql::Blob),
        _ => Some(Sql::Text(unescaped(text).to_owned())),
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

fn whole(text: &str) -> Option<Sql> {
    let number = text.parse::<i64>().ok();
    number
        .or_else(|| finite(text).map(|number| number.round() as i64))
        .map(Sql::Integer)
}

fn flag(text: &str) -> Option<Sql> {
    match text {
        "true" => Some(Sql::Integer(1)),
        "false" => Some(Sql::Integer(0)),
        _ => finite(text).map(|number| Sql::Integer(i64::from(number != 0.0))),
    }
}

fn scaled(text: &str, by: f64) -> Option<Sql> {
    finite(text).map(|number| Sql::Integer((number * by).round() as i64))
}

fn finite(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn moment(text: &str) -> Option<i64> {
    let number = finite(text).map(|number| number as i64);
    number.or_else(|| super::parse_instant(text, super::Bound::Start))
}

/// A request's id; one that is no UUID becomes one that is always the same.
fn request_id(text: &str) -> Vec<u8> {
    match Uuid::parse_str(text) {
        Ok(id) => id.as_bytes().to_vec(),
        Err(_) => {
            let digest = digest::digest(&digest::SHA256, text.as_bytes());
            digest.as_ref().iter().take(16).copied().collect()
        }
    }
}

/// Counts what a row has used, and stops where it is too much.
struct Measured<'a> {
    from: &'a mut dyn Read,
    used: Rc<Cell<u64>>,
}

impl Read for Measured<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(into)?;
        let used = self.used.get() + read as u64;
        self.used.set(used);
        if used > LONGEST_ROW {
            let message = format!("a row has more than {} MB", LONGEST_ROW >> 20);
            return Err(std::io::Error::other(message));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rusqlite::params;

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        connection
    }

    fn text_of(connection: &Connection, sheet: &str) -> String {
        let mut out = Vec::new();
        write(connection, sheet, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Writes all sheets of one database into another.
    fn copied(from: &Connection) -> Connection {
        let to = database();
        let mut numbers = Names::default();
        for sheet in names(from).unwrap() {
            let text = text_of(from, &sheet);
            let mut intake = Intake::writing(&to, &mut numbers).unwrap();
            let taken = intake.sheet(&sheet, &mut text.as_bytes()).unwrap();
            assert_eq!(taken.left_out, vec![], "{sheet}");
        }
        to
    }

    fn looked_at(sheet: &str, text: &str) -> Result<Taken, String> {
        let connection = database();
        let outcome = Intake::looking(&connection).sheet(sheet, &mut text.as_bytes());
        outcome.map_err(|error| error.to_string())
    }

    #[test]
    fn every_table_is_in_a_sheet_or_worked_out_from_others() {
        let connection = database();
        let names = names(&connection).unwrap();
        assert_eq!(
            names[..13],
            contract_sheets().map(str::to_owned).collect::<Vec<_>>()
        );
        for sheet in &SHEETS {
            let Some(table) = sheet.table else { continue };
            let known: Vec<String> = columns(&connection, table)
                .unwrap()
                .into_iter()
                .map(|column| column.name)
                .collect();
            for (column, _) in sheet.foreign {
                assert!(known.iter().any(|name| name == column), "{table}.{column}");
            }
        }
    }

    #[test]
    fn what_is_shown_of_an_empty_database_is_nothing() {
        let connection = database();
        for sheet in names(&connection).unwrap() {
            assert_eq!(text_of(&connection, &sheet), "", "{sheet}");
        }
    }

    #[test]
    fn rows_that_are_wrong_are_named_by_line() {
        let head = "provider,model,expiry,consecutiveFailures";
        for (rows, wanted) in [
            (
                "up,m,never,1",
                "line 2: until_ms: found \"never\", wanted a time",
            ),
            (
                "up,m,5,1\nup,n,6,many",
                "line 3: failures: found \"many\", wanted a number",
            ),
            ("up,m,\\N,1", "line 2: found nothing for until_ms"),
            ("up,m,5", "line 2: found 3 cells, wanted 4"),
        ] {
            let error = looked_at("provider_cooldowns", &format!("{head}\n{rows}")).unwrap_err();
            assert!(
                error.starts_with("provider_cooldowns.csv: ") && error.contains(wanted),
                "{error}"
            );
        }
        assert!(
            looked_at("no_such", "a\n1")
                .unwrap_err()
                .contains("not known")
        );
        assert_eq!(
            looked_at("provider_cooldowns", &format!("{head}\nup,,5,1"))
                .unwrap()
                .rows,
            1
        );
    }

    #[test]
    fn ids_that_are_no_uuid_are_taken_all_the_same() {
        assert_eq!(request_id("x"), request_id("x"));
        assert_ne!(request_id("x"), request_id("y"));
        assert_eq!(request_id("x").len(), 16);
    }

    #[test]
    fn money_and_time_are_exact() {
        assert_eq!(scaled("0.000573", 1e9), Some(Sql::Integer(573_000)));
        assert_eq!(
            scaled("573.000000123", 1e9),
            Some(Sql::Integer(573_000_000_123))
        );
        assert_eq!(scaled("12.5", 1e3), Some(Sql::Integer(12_500)));
        assert_eq!(scaled("inf", 1e3), None);
        assert_eq!(moment("2026-01-31T12:00:00.007Z"), Some(1_769_860_800_007));
    }

    proptest! {
        #[test]
        fn any_text_and_any_bytes_survive(
            message in "(\\PC|[\\r\\n\",\\\\N]){0,12}",
            name in proptest::option::of("[a-z\\\\N]{1,4}"),
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
            number in any::<i64>(),
        ) {
            let from = database();
            let key = name.as_ref().map(|name| {
                from.execute("INSERT INTO names (text) VALUES (?1)", [name]).unwrap();
                from.last_insert_rowid()
            });
            from.execute(
                "INSERT INTO errors (request_id, date_ms, key_id, message, details) VALUES (?1, ?2, ?3, ?4, ?4)",
                params![bytes, number, key, message],
            ).unwrap();
            from.execute(
                "INSERT INTO responses VALUES ('r', ?1, 1, 2, 'p', 0, ?1, ?2, X'7b7d')",
                params![message, bytes],
            ).unwrap();
            let to = copied(&from);
            for sheet in ["inference_errors", "responses"] {
                prop_assert_eq!(text_of(&from, sheet), text_of(&to, sheet));
            }
        }

        #[test]
        fn no_text_is_too_strange_to_be_looked_at(text in "\\PC{0,80}") {
            // Taken or refused, but never a panic.
            drop(looked_at("request_usage", &text));
            drop(looked_at("plexus_nothing", &text));
        }
    }
}
