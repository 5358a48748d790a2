//! The `captures` table: what went over the wire of single requests. It has a
//! largest size and a largest number of rows; the oldest make room.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use uuid::Uuid;

use super::record::{Record, uuid};

/// Most captures that are kept.
const MOST: i64 = 50_000;
/// How many of the oldest go at once when there is too much.
const TRIMMED: u32 = 16;
/// What a row weighs beside its bodies, in bytes.
const OVERHEAD: usize = 200;

/// One capture, as it is written.
#[derive(Debug)]
pub struct CaptureRow {
    /// Whose it is.
    pub request_id: Uuid,
    /// When that request arrived, milliseconds since the epoch.
    pub created_ms: i64,
    /// The name of its key.
    pub key: Option<Arc<str>>,
    /// The status that the client got.
    pub status: Option<u16>,
    /// A JSON object: header fields and whatever else is no body.
    pub about: Bytes,
    /// The client's request.
    pub request: Option<Bytes>,
    /// What was sent to the provider.
    pub sent: Option<Bytes>,
    /// What the provider answered.
    pub received: Option<Bytes>,
    /// What the client got.
    pub answer: Option<Bytes>,
    /// Dropped when the row is written.
    pub held: Box<dyn Any + Send>,
}

/// Makes the row, in the store's thread; `None` is no row.
pub type Sealing = Box<dyn FnOnce() -> Option<Box<CaptureRow>> + Send>;

/// One capture, as it was kept.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in CaptureRow")]
pub struct StoredCapture {
    pub request_id: Uuid,
    pub created_ms: i64,
    pub key: Option<String>,
    pub status: Option<u16>,
    pub about: Record,
    pub request: Option<Vec<u8>>,
    pub sent: Option<Vec<u8>>,
    pub received: Option<Vec<u8>>,
    pub answer: Option<Vec<u8>>,
}

/// Some of the captures, newest first, without their bodies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CapturePage {
    /// `requestId`, `createdAt` and `responseStatus` of each.
    pub data: Vec<Record>,
    /// How many there are without limit and offset.
    pub total: u64,
}

/// Writes captures, and makes room for them.
#[derive(Debug)]
pub(super) struct Shelf {
    /// Most bytes; 0 is no limit.
    limit: i64,
    /// Rows and bytes that are there, once they were counted.
    standing: Option<(i64, i64)>,
}

impl Shelf {
    pub(super) const fn new(limit: i64) -> Self {
        Self {
            limit,
            standing: None,
        }
    }

    /// What is there has to be counted again.
    pub(super) fn forget(&mut self) {
        self.standing = None;
    }

    /// Writes a capture. A request that has one keeps it.
    pub(super) fn put(
        &mut self,
        connection: &Connection,
        row: &CaptureRow,
    ) -> Result<(), rusqlite::Error> {
        let (rows, bytes) = self.counted(connection)?;
        let same = row.answer.is_some() && row.answer == row.received;
        let answer = row.answer.as_deref().filter(|_| !same);
        let bodies = [
            row.request.as_deref(),
            row.sent.as_deref(),
            row.received.as_deref(),
            answer,
        ];
        let size = bodies
            .iter()
            .flatten()
            .map(|body| body.len())
            .sum::<usize>();
        let size = signed(size + row.about.len() + OVERHEAD);
        let written = connection.prepare_cached(INSERT)?.execute(params![
            row.request_id.as_bytes(),
            row.created_ms,
            row.key.as_deref(),
            row.status,
            size,
            same,
            &row.about[..],
            bodies[0],
            bodies[1],
            bodies[2],
            bodies[3],
        ])?;
        if written > 0 {
            self.standing = Some((rows + 1, bytes + size));
        }
        Ok(())
    }

    /// Deletes the oldest until the rest is within its limits.
    pub(super) fn trim(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let Some((mut rows, mut bytes)) = self.standing else {
            return Ok(());
        };
        while rows > MOST || (self.limit > 0 && bytes > self.limit) {
            let mut statement = connection.prepare_cached(DELETE_OLDEST)?;
            let sizes = statement.query_map([TRIMMED], |row| row.get::<_, i64>(0))?;
            let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
            if sizes.is_empty() {
                break;
            }
            rows -= signed(sizes.len());
            bytes -= sizes.iter().sum::<i64>();
        }
        self.standing = Some((rows, bytes));
        Ok(())
    }

    fn counted(&mut self, connection: &Connection) -> Result<(i64, i64), rusqlite::Error> {
        if let Some(standing) = self.standing {
            return Ok(standing);
        }
        let standing = connection
            .prepare_cached("SELECT count(*), coalesce(sum(size), 0) FROM captures")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        self.standing = Some(standing);
        Ok(standing)
    }
}

const INSERT: &str = "INSERT INTO captures
    (request_id, created_ms, key, status, size, same, about, request, sent, received, answer)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
    ON CONFLICT (request_id) DO NOTHING";

const DELETE_OLDEST: &str = "DELETE FROM captures
    WHERE id IN (SELECT id FROM captures ORDER BY id LIMIT ?1) RETURNING size";

/// SQLite's integers are signed.
fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Whose captures are meant: those of one key, or all.
const MINE: &str = "(?1 IS NULL OR key = ?1)";

/// The page of the newest captures; with `only_key`, of that key's alone.
pub(super) fn page(
    connection: &Connection,
    limit: i64,
    offset: i64,
    only_key: Option<&str>,
) -> Result<CapturePage, rusqlite::Error> {
    let total: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM captures WHERE {MINE}"))?
        .query_row([only_key], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT request_id, created_ms, status FROM captures
         WHERE {MINE} ORDER BY id DESC LIMIT ?2 OFFSET ?3"
    ))?;
    let mut rows = statement.query(params![only_key, limit, offset])?;
    let mut data = Vec::new();
    while let Some(row) = rows.next()? {
        let mut record = Record::new();
        record.insert("requestId".to_owned(), uuid(&row.get::<_, Vec<u8>>(0)?));
        record.insert("createdAt".to_owned(), row.get::<_, i64>(1)?.into());
        record.insert(
            "responseStatus".to_owned(),
            row.get::<_, Option<u16>>(2)?.into(),
        );
        data.push(record);
    }
    Ok(CapturePage {
        data,
        total: u64::try_from(total).unwrap_or(0),
    })
}

/// The capture of that request; with `only_key`, if it is that key's.
pub(super) fn by_request(
    connection: &Connection,
    request_id: Uuid,
    only_key: Option<&str>,
) -> Result<Option<StoredCapture>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT created_ms, key, status, about, request, sent, received, answer, same
         FROM captures WHERE request_id = ?1 AND (?2 IS NULL OR key = ?2)",
    )?;
    let found = statement.query_row(params![request_id.as_bytes(), only_key], |row| {
        let about: Vec<u8> = row.get(3)?;
        let received: Option<Vec<u8>> = row.get(6)?;
        let same: bool = row.get(8)?;
        let answer = if same { received.clone() } else { row.get(7)? };
        Ok(StoredCapture {
            request_id,
            created_ms: row.get(0)?,
            key: row.get(1)?,
            status: row.get(2)?,
            about: match serde_json::from_slice(&about) {
                Ok(Value::Object(about)) => about,
                _ => Record::new(),
            },
            request: row.get(4)?,
            sent: row.get(5)?,
            received,
            answer,
        })
    });
    found.optional()
}

/// Deletes the capture of that request; with `only_key`, only if it is that
/// key's. Returns how many rows went.
pub(super) fn delete_of(
    connection: &Connection,
    request_id: Uuid,
    only_key: Option<&str>,
) -> Result<u64, rusqlite::Error> {
    let deleted = connection
        .prepare_cached("DELETE FROM captures WHERE request_id = ?1 AND (?2 IS NULL OR key = ?2)")?
        .execute(params![request_id.as_bytes(), only_key])?;
    Ok(deleted as u64)
}

/// Deletes up to `slice` captures from before `before_ms`; returns how many went.
pub(super) fn delete_slice(
    connection: &Connection,
    before_ms: i64,
    slice: u32,
) -> Result<u64, rusqlite::Error> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM captures WHERE id IN
             (SELECT id FROM captures WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2)",
        )?
        .execute(params![before_ms, slice])?;
    Ok(deleted as u64)
}

/// Works out what rows weigh that came from elsewhere.
pub(super) fn measure(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection
        .execute(
            "UPDATE captures SET size = ?1 + length(about) + coalesce(length(request), 0)
                 + coalesce(length(sent), 0) + coalesce(length(received), 0)
                 + coalesce(length(answer), 0)
             WHERE size = 0",
            [signed(OVERHEAD)],
        )
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        connection
    }

    fn row(number: u128, body: usize) -> CaptureRow {
        CaptureRow {
            request_id: Uuid::from_u128(number),
            created_ms: i64::try_from(number).unwrap(),
            key: Some("app".into()),
            status: Some(200),
            about: Bytes::from_static(b"{}"),
            request: Some(vec![b'q'; body].into()),
            sent: None,
            received: Some(Bytes::from_static(b"same")),
            answer: Some(Bytes::from_static(b"same")),
            held: Box::new(()),
        }
    }

    fn left(connection: &Connection) -> Vec<u128> {
        let found = |number| by_request(connection, Uuid::from_u128(number), None).unwrap();
        (1..100).filter(|number| found(*number).is_some()).collect()
    }

    #[test]
    fn the_oldest_captures_make_room_for_the_newest() {
        let connection = database();
        let mut shelf = Shelf::new(100_000);
        for number in 1..=60 {
            shelf.put(&connection, &row(number, 5000)).unwrap();
            shelf.trim(&connection).unwrap();
        }
        let left = left(&connection);
        assert_eq!(left.last(), Some(&60));
        assert!((3..=19).contains(&left.len()), "{left:?}");
        let first = left[0];
        assert!(left.iter().copied().eq(first..=60), "{left:?}");
        // What was counted on the way is what is there.
        let standing = shelf.standing;
        shelf.forget();
        assert_eq!(Some(shelf.counted(&connection).unwrap()), standing);
    }

    #[test]
    fn an_answer_that_is_what_the_provider_sent_is_kept_once_and_read_twice() {
        let connection = database();
        let mut shelf = Shelf::new(0);
        shelf.put(&connection, &row(1, 10)).unwrap();
        let answer: Option<Vec<u8>> = connection
            .query_row("SELECT answer FROM captures", [], |row| row.get(0))
            .unwrap();
        assert_eq!(answer, None);
        let stored = by_request(&connection, Uuid::from_u128(1), Some("app")).unwrap();
        let stored = stored.unwrap();
        assert_eq!(stored.answer.as_deref(), Some(&b"same"[..]));
        assert_eq!(stored.received, stored.answer);
        assert_eq!(stored.sent, None);
    }

    #[test]
    fn a_capture_is_seen_and_deleted_by_its_key_alone() {
        let connection = database();
        let mut shelf = Shelf::new(0);
        shelf.put(&connection, &row(1, 10)).unwrap();
        let id = Uuid::from_u128(1);
        assert!(
            by_request(&connection, id, Some("other"))
                .unwrap()
                .is_none()
        );
        assert_eq!(page(&connection, 50, 0, Some("other")).unwrap().total, 0);
        assert_eq!(page(&connection, 50, 0, Some("app")).unwrap().total, 1);
        assert_eq!(delete_of(&connection, id, Some("other")).unwrap(), 0);
        assert_eq!(delete_of(&connection, id, Some("app")).unwrap(), 1);
    }

    #[test]
    fn old_captures_go_slice_by_slice() {
        let connection = database();
        let mut shelf = Shelf::new(0);
        for number in 1..=5 {
            shelf.put(&connection, &row(number, 1)).unwrap();
        }
        assert_eq!(delete_slice(&connection, 4, 2).unwrap(), 2);
        assert_eq!(delete_slice(&connection, 4, 2).unwrap(), 1);
        assert_eq!(delete_slice(&connection, 4, 2).unwrap(), 0);
        assert_eq!(left(&connection), [4, 5]);
    }
}
