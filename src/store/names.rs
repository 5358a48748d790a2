//! Texts that come again and again (keys, providers, models, statuses), each
//! kept once in `names` and referred to by number.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rusqlite::{CachedStatement, Connection, OptionalExtension};

/// Texts remembered at most. Clients choose some of them, so the memory is
/// emptied when it is full; the table has them all.
const REMEMBERED: usize = 20_000;

/// What the writer remembers of the table. Numbers given out inside a
/// transaction are forgotten again if it is rolled back.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Box<str>, i64, RandomState>,
    uncertain: Vec<Box<str>>,
}

impl Names {
    /// The statements for one transaction.
    pub(super) fn within<'a>(
        &'a mut self,
        connection: &'a Connection,
    ) -> Result<Interner<'a>, rusqlite::Error> {
        Ok(Interner {
            find: connection.prepare_cached("SELECT id FROM names WHERE text = ?1")?,
            add: connection.prepare_cached("INSERT INTO names (text) VALUES (?1)")?,
            names: self,
        })
    }

    /// The transaction was committed.
    pub(super) fn settle(&mut self) {
        self.uncertain.clear();
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
    }

    /// The transaction was rolled back.
    pub(super) fn revert(&mut self) {
        for text in self.uncertain.drain(..) {
            self.known.remove(&text);
        }
    }
}

/// Gives numbers to texts inside a transaction.
pub(super) struct Interner<'a> {
    names: &'a mut Names,
    find: CachedStatement<'a>,
    add: CachedStatement<'a>,
}

impl Interner<'_> {
    /// The number of that text; a new text is added.
    pub(super) fn id(&mut self, text: &str) -> Result<i64, rusqlite::Error> {
        if let Some(id) = self.names.known.get(text) {
            return Ok(*id);
        }
        let found = self.find.query_row([text], |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                let id = self.add.insert([text])?;
                self.names.uncertain.push(text.into());
                id
            }
        };
        self.names.known.insert(text.into(), id);
        Ok(id)
    }

    /// The same for a text that may be missing.
    pub(super) fn maybe(&mut self, text: Option<&str>) -> Result<Option<i64>, rusqlite::Error> {
        text.map(|text| self.id(text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_number_and_a_rolled_back_one_is_forgotten() {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        let mut names = Names::default();
        let first = names.within(&connection).unwrap().id("a").unwrap();
        names.settle();

        connection.execute_batch("BEGIN").unwrap();
        let lost = names.within(&connection).unwrap().id("b").unwrap();
        connection.execute_batch("ROLLBACK").unwrap();
        names.revert();

        let mut interner = names.within(&connection).unwrap();
        let third = interner.id("c").unwrap();
        assert_eq!(third, lost);
        assert_ne!(interner.id("b").unwrap(), lost);
        assert_eq!(interner.id("a").unwrap(), first);
    }

    #[test]
    fn the_memory_is_emptied_when_it_is_full_and_numbers_stay() {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        let mut names = Names::default();
        connection.execute_batch("BEGIN").unwrap();
        let first = names.within(&connection).unwrap().id("n0").unwrap();
        for i in 1..=REMEMBERED {
            names
                .within(&connection)
                .unwrap()
                .id(&format!("n{i}"))
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        names.settle();
        assert!(names.known.is_empty());
        assert_eq!(names.within(&connection).unwrap().id("n0").unwrap(), first);
    }
}
