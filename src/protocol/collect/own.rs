//! Blocks cut loose from the document that they came from.

use std::borrow::Cow;

use super::super::ir::{Annotation, Hosted, Media, Opaque, SearchHit, Source};
use super::super::json::{Raw, Str};

pub(super) fn opaque(opaque: Opaque<'_>) -> Opaque<'static> {
    Opaque {
        kind: opaque.kind,
        data: opaque.data.into_owned(),
        model: opaque.model.map(Str::into_owned),
        account: opaque.account.map(Str::into_owned),
    }
}

pub(super) fn annotation(annotation: Annotation<'_>) -> Annotation<'static> {
    Annotation {
        url: annotation.url.into_owned(),
        title: annotation.title.map(Str::into_owned),
        cited: annotation.cited.map(Str::into_owned),
        span: annotation.span,
    }
}

pub(super) fn media(media: Media<'_>) -> Media<'static> {
    let source = match media.source {
        Source::Inline { mime, data } => Source::Inline {
            mime: Cow::Owned(mime.into_owned()),
            data: data.into_owned(),
        },
        Source::Url { url, mime } => Source::Url {
            url: url.into_owned(),
            mime: mime.map(Str::into_owned),
        },
        Source::File { id } => Source::File {
            id: id.into_owned(),
        },
        Source::Text(text) => Source::Text(text.into_owned()),
    };
    Media {
        kind: media.kind,
        source,
        name: media.name.map(Str::into_owned),
        context: media.context.map(Str::into_owned),
        detail: media.detail.map(Str::into_owned),
        cite: media.cite,
        cache: media.cache,
        path: media.path,
    }
}

pub(super) fn hosted(hosted: Hosted<'_>) -> Hosted<'static> {
    let hit = |hit: SearchHit<'_>| SearchHit {
        url: hit.url.into_owned(),
        title: hit.title.map(Str::into_owned),
    };
    Hosted {
        kind: hosted.kind,
        id: hosted.id.into_owned(),
        input: hosted.input.map(Raw::into_owned),
        sources: hosted.sources.into_iter().map(hit).collect(),
        output: hosted.output.map(Str::into_owned),
        failed: hosted.failed,
        native: hosted.native.into_iter().map(Raw::into_owned).collect(),
        origin: hosted.origin,
    }
}
