//! What a query wants of usage rows, as conditions on `usage`, `sums` or blocks.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::sums::{Kept, Side};
use super::usage::UsageQuery;

/// Conditions that all hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    terms: Vec<Term>,
    /// Shortest and longest duration in microseconds.
    pub(super) duration: Option<(u64, u64)>,
    /// Ids of requests and clients, as SQL with one value each: both have an
    /// index.
    ids: Vec<(&'static str, Sql)>,
}

/// A condition on one side of a row: one of these numbers of `names`; 0 is none
/// at all.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) side: Side,
    pub(super) names: Vec<i64>,
}

impl Filter {
    /// The conditions of a query, its dates left out. Names are looked up.
    pub(super) fn of(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<Self> {
        let mut filter = Self::default();
        filter.parts(connection, query)?;
        filter.names(connection, query)?;
        filter.rows_only(query);
        Ok(filter)
    }

    /// Conditions on a part of a name. `instr` takes every character for
    /// itself, so that `%` and `_` need no escape.
    fn parts(&mut self, connection: &Connection, query: &UsageQuery) -> rusqlite::Result<()> {
        let parts = [
            (Side::Key, &query.api_key),
            (Side::Provider, &query.provider),
            (Side::Alias, &query.incoming_model_alias),
            (Side::Model, &query.selected_model_name),
        ];
        for (side, part) in parts {
            let Some(part) = part else { continue };
            let numbers = connection
                .prepare_cached("SELECT id FROM names WHERE instr(lower(text), lower(?1)) > 0")?
                .query_map([part], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            self.terms.push(Term {
                side,
                names: numbers,
            });
        }
        Ok(())
    }

    /// Conditions on a whole name.
    fn names(&mut self, connection: &Connection, query: &UsageQuery) -> rusqlite::Result<()> {
        let names = [
            (Side::Key, &query.only_key),
            (Side::Incoming, &query.incoming_api_type),
            (Side::Outgoing, &query.outgoing_api_type),
            (Side::Status, &query.response_status),
            (Side::Attribution, &query.attribution),
        ];
        for (side, name) in names {
            let Some(name) = name else { continue };
            let number = connection
                .prepare_cached("SELECT id FROM names WHERE text = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()?;
            self.terms.push(Term {
                side,
                names: number.into_iter().collect(),
            });
        }
        Ok(())
    }

    fn rows_only(&mut self, query: &UsageQuery) {
        if let Some(id) = &query.client_request_id {
            self.ids.push(("client_request_id = ?", id.clone().into()));
        }
        if let Some(id) = &query.request_id {
            // What is no id is nobody's id.
            let id = Uuid::parse_str(id).map_or(Sql::Null, |id| Sql::Blob(id.as_bytes().to_vec()));
            self.ids.push(("request_id = ?", id));
        }
        if query.min_duration_ms.is_some() || query.max_duration_ms.is_some() {
            // A cast saturates.
            let shortest = query.min_duration_ms.map(|ms| (ms * 1000.0).ceil() as u64);
            let longest = query.max_duration_ms.map(|ms| {
                let us = (ms * 1000.0).floor();
                // Nothing is shorter than nothing.
                if us < 0.0 { None } else { Some(us as u64) }
            });
            self.duration = match longest {
                Some(None) => Some((1, 0)),
                longest => Some((shortest.unwrap_or(0), longest.flatten().unwrap_or(u64::MAX))),
            };
        }
    }

    /// The same with one more condition.
    pub(super) fn with(&self, term: Term) -> Self {
        let mut filter = self.clone();
        filter.terms.push(term);
        filter
    }

    /// Whether it asks for ids.
    pub(super) const fn has_ids(&self) -> bool {
        !self.ids.is_empty()
    }

    /// Whether it is known that no row meets it.
    pub(super) fn is_hopeless(&self) -> bool {
        self.terms.iter().any(|term| term.names.is_empty())
    }

    /// The sides that it speaks of.
    pub(super) fn sides(&self) -> impl Iterator<Item = Side> {
        self.terms.iter().map(|term| term.side)
    }

    /// The conditions on sides.
    pub(super) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The same for those entries of `sums`, as SQL to follow other conditions.
    pub(super) fn on_sums(&self, kept: Kept) -> String {
        let mut text = String::new();
        for term in &self.terms {
            let column = kept.column(term.side);
            text.push_str(&format!(" AND {column} IN ({})", list(&term.names)));
        }
        text
    }

    /// The same for `usage`, and the values.
    pub(super) fn on_rows(&self) -> (String, Vec<Sql>) {
        let (mut text, mut values) = (String::new(), Vec::new());
        for term in &self.terms {
            let numbers = list(&term.names);
            let column = term.side.column();
            text.push_str(&match term.side {
                Side::Attribution => format!(
                    " AND {column} IN (SELECT text FROM names WHERE names.id IN ({numbers}))"
                ),
                _ => format!(" AND coalesce({column}, 0) IN ({numbers})"),
            });
        }
        if let Some((shortest, longest)) = self.duration {
            let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
            text.push_str(" AND duration_us BETWEEN ? AND ?");
            values.extend([signed(shortest).into(), signed(longest).into()]);
        }
        for (condition, value) in &self.ids {
            text.push_str(" AND ");
            text.push_str(condition);
            values.push(value.clone());
        }
        (text, values)
    }
}

fn list(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    numbers.join(",")
}
