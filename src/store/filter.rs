//! What a query wants of usage rows, as conditions on `usage`, `sums` or
//! `facets`.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::sums::Side;
use super::usage::UsageQuery;

/// Conditions that all hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    terms: Vec<Term>,
    /// Conditions that only rows can meet, as SQL with one value each.
    of_rows: Vec<(&'static str, Sql)>,
}

/// A condition on one side of a row.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) side: Side,
    pub(super) test: Test,
}

#[derive(Clone, Debug)]
pub(super) enum Test {
    /// One of these numbers of `names`; 0 is none at all.
    Numbers(Vec<i64>),
    /// This text.
    Text(String),
}

/// Where conditions are to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `usage`, where what is missing is NULL.
    Rows,
    /// `facets`.
    Facets,
    /// The entries of one side in `sums`.
    Sums,
}

impl Filter {
    /// The conditions of a query, its dates left out. Names are looked up.
    pub(super) fn of(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<Self> {
        let mut filter = Self::default();
        filter.parts(connection, query)?;
        filter.names(connection, query)?;
        if let Some(text) = &query.attribution {
            filter.terms.push(Term {
                side: Side::Attribution,
                test: Test::Text(text.clone()),
            });
        }
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
            let test = Test::Numbers(numbers);
            self.terms.push(Term { side, test });
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
        ];
        for (side, name) in names {
            let Some(name) = name else { continue };
            let number = connection
                .prepare_cached("SELECT id FROM names WHERE text = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()?;
            let test = Test::Numbers(number.into_iter().collect());
            self.terms.push(Term { side, test });
        }
        Ok(())
    }

    fn rows_only(&mut self, query: &UsageQuery) {
        if let Some(id) = &query.client_request_id {
            self.of_rows
                .push(("client_request_id = ?", id.clone().into()));
        }
        if let Some(id) = &query.request_id {
            // What is no id is nobody's id.
            let id = Uuid::parse_str(id).map_or(Sql::Null, |id| Sql::Blob(id.as_bytes().to_vec()));
            self.of_rows.push(("request_id = ?", id));
        }
        if let Some(ms) = query.min_duration_ms {
            let shortest = (ms * 1000.0).ceil() as i64;
            self.of_rows.push(("duration_us >= ?", shortest.into()));
        }
        if let Some(ms) = query.max_duration_ms {
            let longest = (ms * 1000.0).floor() as i64;
            self.of_rows.push(("duration_us <= ?", longest.into()));
        }
    }

    /// The same with one more condition.
    pub(super) fn with(&self, term: Term) -> Self {
        let mut filter = self.clone();
        filter.terms.push(term);
        filter
    }

    /// Whether only the rows themselves can meet it.
    pub(super) const fn needs_rows(&self) -> bool {
        !self.of_rows.is_empty()
    }

    /// Whether it is known that no row meets it.
    pub(super) fn is_hopeless(&self) -> bool {
        let mut terms = self.terms.iter();
        terms.any(|term| matches!(&term.test, Test::Numbers(none) if none.is_empty()))
    }

    /// The sides that it speaks of.
    pub(super) fn sides(&self) -> impl Iterator<Item = Side> {
        self.terms.iter().map(|term| term.side)
    }

    /// SQL to follow other conditions, and its values.
    pub(super) fn sql(&self, place: Place) -> (String, Vec<Sql>) {
        let (mut text, mut values) = (String::new(), Vec::new());
        for Term { side, test } in &self.terms {
            let column = match place {
                Place::Rows | Place::Facets => side.column(),
                Place::Sums => "name_id",
            };
            text.push_str(" AND ");
            match test {
                Test::Text(wanted) => {
                    text.push_str(&format!("{column} = ?"));
                    values.push(wanted.clone().into());
                }
                Test::Numbers(numbers) if place == Place::Rows && numbers.contains(&0) => {
                    text.push_str(&format!("coalesce({column}, 0) IN ({})", list(numbers)));
                }
                Test::Numbers(numbers) => {
                    text.push_str(&format!("{column} IN ({})", list(numbers)));
                }
            }
        }
        for (condition, value) in &self.of_rows {
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
