//! The writer: one thread, the only writable connection, a bounded queue in
//! front of it. Whoever serves a request hands its row over and goes on; the
//! row is on disk at most 50 ms later, and if the queue is full it is dropped
//! and counted.
//!
//! While rows come in the thread polls and sleeps, so that no sender ever has
//! to wake it: a wake-up is a system call in the sender's thread. Only after a
//! quiet second does it wait to be woken.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TryRecvError, bounded};
use rusqlite::Connection;

use super::blocks::Fold;
use super::captures::{self, Sealing};
use super::error::StoreError;
use super::ledger::{Ledger, Row};
use super::responses::{self, Load, ResponseRow, Waiting};
use super::restore::Restore;
use super::row::{CooldownRow, ErrorRow, QuotaState, UsageRow};
use super::{failures, quotas, usage};
use crate::feed::{Event, Feed, Kind};
use crate::metrics::Metrics;
use crate::vault::Vault;

/// Most rows of one transaction.
const BATCH: usize = 512;

/// How long rows gather before they are committed. With one sleep before a row
/// is seen, one after it is due, and the commit, this stays under 50 ms.
const GATHER: Duration = Duration::from_millis(20);

/// The sleep between two looks at the queue.
const POLL: Duration = Duration::from_millis(10);

/// Quiet after which the thread waits to be woken.
const QUIET: Duration = Duration::from_secs(1);

/// First and longest pause after a commit that failed.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long rows are in no block after putting them there failed.
const FOLD_AGAIN: Duration = Duration::from_secs(10);

/// How long somebody waits for work that the database does not let begin or go on,
/// however long it may take when it does.
const STUCK: Duration = Duration::from_secs(10);

/// Rows deleted in one transaction, so that writing never waits long.
const SLICE: u32 = 1000;

/// How often old rows are looked for.
const RETENTION: Duration = Duration::from_secs(3600);

/// How long closing may take when nobody asked for it.
const ABANDONED: Duration = Duration::from_secs(5);

/// Days after which rows are deleted; zero keeps them for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retention {
    pub(super) usage_days: u32,
    pub(super) error_days: u32,
    pub(super) debug_days: u32,
    /// Bytes of debug captures; zero is no limit.
    pub(super) debug_bytes: i64,
    /// Bytes of the file; zero is no limit.
    pub(super) database_bytes: i64,
    /// How long after the start old rows are first looked for.
    pub(super) delay: Duration,
}

impl Retention {
    fn chores(self, now_ms: i64) -> Vec<Chore> {
        const DAY_MS: i64 = 86_400_000;
        let before = |days: u32| now_ms.saturating_sub(i64::from(days) * DAY_MS);
        let mut chores = Vec::new();
        if self.usage_days > 0 {
            chores.push(Chore::unasked(prune_usage(before(self.usage_days))));
        }
        if self.error_days > 0 {
            chores.push(Chore::unasked(prune_errors(before(self.error_days))));
        }
        if self.debug_days > 0 {
            chores.push(Chore::unasked(prune_captures(before(self.debug_days))));
        }
        // Answers and quotas know themselves when they expire.
        chores.push(Chore::unasked(prune_expired(now_ms)));
        if self.database_bytes > 0 {
            chores.push(Chore::unasked(prune_to_size(self.database_bytes)));
        }
        chores
    }
}

/// Something to do on the writable connection. It may be tried more than once;
/// the number is of rows.
pub(super) type Task = Box<dyn FnMut(&Connection) -> Result<u64, rusqlite::Error> + Send>;

/// Deletes a slice of the usage rows from before that time.
pub(super) fn prune_usage(before_ms: i64) -> Task {
    Box::new(move |connection| usage::delete_slice(connection, before_ms, SLICE))
}

/// Deletes a slice of the error rows from before that time.
pub(super) fn prune_errors(before_ms: i64) -> Task {
    Box::new(move |connection| failures::delete_slice(connection, before_ms, SLICE))
}

/// Deletes a slice of the captures from before that time. They may be large, so
/// the slice is small.
pub(super) fn prune_captures(before_ms: i64) -> Task {
    Box::new(move |connection| captures::delete_slice(connection, before_ms, SLICE / 16))
}

/// Deletes a slice of the answers that have expired, and of quotas' states of which
/// nothing is left.
fn prune_expired(now_ms: i64) -> Task {
    Box::new(move |connection| {
        let answers = responses::delete_slice(connection, now_ms, SLICE)?;
        Ok(answers + quotas::delete_slice(connection, now_ms, SLICE)?)
    })
}

/// Deletes a slice of the oldest usage rows while the file is too large, until
/// there is some room again.
fn prune_to_size(bytes: i64) -> Task {
    let mut over = false;
    Box::new(move |connection| {
        let used = used_bytes(connection)?;
        over = used > if over { bytes / 100 * 95 } else { bytes };
        if over {
            usage::delete_slice(connection, i64::MAX, SLICE)
        } else {
            Ok(0)
        }
    })
}

/// Bytes of the file's pages that are in use.
fn used_bytes(connection: &Connection) -> Result<i64, rusqlite::Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(pages.saturating_mul(number("page_size")?))
}

/// Something that replaces what is kept; the number is of no meaning.
pub(super) type Replacement = Box<dyn FnOnce(&mut Restore<'_>) -> Result<u64, StoreError> + Send>;

/// What the writer is asked for, and waited for.
pub(super) enum Work {
    /// All rows sent before are committed.
    Flush,
    /// The same, and the thread ends.
    Close,
    /// Done once, in a transaction of its own.
    Once(Task),
    /// Done once, whatever comes of it: what is kept is replaced.
    Replace(Arc<Vault>, Option<Replacement>),
    /// Done again and again, each time in a transaction of its own, until it
    /// returns zero; rows are written in between.
    Sliced(Task),
}

enum Message {
    Usage(Box<UsageRow>),
    Error(Box<ErrorRow>),
    Cooldown(Box<CooldownRow>),
    Quota(Arc<dyn QuotaState>),
    Response(Box<ResponseRow>, Load),
    Capture(Sealing),
    Job(Box<Job>),
}

struct Job {
    work: Work,
    /// When it must have been begun, and go on.
    begun_by: Instant,
    /// When it must be done.
    until: Instant,
    answer: Sender<Result<u64, StoreError>>,
}

impl Job {
    fn is_late(&self) -> bool {
        Instant::now() >= self.begun_by.min(self.until)
    }

    fn answer(&self, answer: Result<u64, StoreError>) {
        // Whoever asked may have gone.
        let _gone = self.answer.try_send(answer);
    }
}

/// Where rows are handed over. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct Writer {
    sender: Sender<Message>,
    dropped: Arc<AtomicU64>,
    answers: Waiting,
    feed: Arc<Feed>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("waiting", &self.sender.len())
            .field("dropped", &self.dropped())
            .finish()
    }
}

impl Writer {
    /// Hands over a usage row. If the queue is full, the row is dropped and
    /// counted.
    pub fn usage(&self, row: Box<UsageRow>) {
        self.hand_over(Message::Usage(row));
    }

    /// Hands over an error row. If the queue is full, the row is dropped and
    /// counted.
    pub fn error(&self, row: Box<ErrorRow>) {
        self.hand_over(Message::Error(row));
    }

    /// Hands over what became of a target's rest. If the queue is full, it is
    /// dropped and counted, and a restart forgets that rest.
    pub fn cooldown(&self, row: Box<CooldownRow>) {
        self.hand_over(Message::Cooldown(row));
    }

    /// Says that what is used of a quota changed; the writer fetches the state
    /// when it comes to it. If the queue is full, that is counted as a dropped row
    /// and the answer is false: the next change has to be announced again.
    pub fn quota(&self, state: Arc<dyn QuotaState>) -> bool {
        self.hand_over(Message::Quota(state))
    }

    /// Hands over an answer to keep. If the queue is full, or more than 64 MiB of
    /// answers wait, it is dropped and counted.
    pub fn response(&self, row: Box<ResponseRow>) {
        match self.answers.load(&row) {
            Some(load) => {
                self.hand_over(Message::Response(row, load));
            }
            None => self.count_drop(),
        }
    }

    /// Hands over a capture, to be made a row by the writer's thread. False if the
    /// queue is full; how many may wait is the caller's business.
    #[must_use]
    pub fn capture(&self, sealing: Sealing) -> bool {
        self.sender.try_send(Message::Capture(sealing)).is_ok()
    }

    /// Where it is told what is going on.
    #[must_use]
    pub const fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Rows dropped since the store was opened.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Rows handed over and not yet taken by the writer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sender.len()
    }

    /// Asks for `work` and waits for it, at most `limit`, and not long while
    /// nothing comes of it. Blocks.
    pub(super) fn ask(&self, work: Work, limit: Duration) -> Result<u64, StoreError> {
        let until = Instant::now() + limit;
        let begun_by = match work {
            // Closing has all of its time.
            Work::Close => until,
            _ => Instant::now() + limit.min(STUCK),
        };
        let (answer, answered) = bounded(1);
        let job = Box::new(Job {
            work,
            begun_by,
            until,
            answer,
        });
        match self.sender.send_deadline(Message::Job(job), begun_by) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => return Err(StoreError::Timeout),
            Err(SendTimeoutError::Disconnected(_)) => return Err(StoreError::Closed),
        }
        match answered.recv_deadline(until) {
            Ok(answer) => answer,
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => Err(StoreError::Timeout),
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Err(StoreError::Closed),
        }
    }

    fn hand_over(&self, message: Message) -> bool {
        let sent = self.sender.try_send(message).is_ok();
        if !sent {
            self.count_drop();
        }
        sent
    }

    fn count_drop(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.metrics.row_dropped();
    }
}

/// Starts the thread.
pub(super) fn start(
    connection: Connection,
    queue: usize,
    retention: Retention,
    metrics: Arc<Metrics>,
) -> Result<(Writer, JoinHandle<()>), std::io::Error> {
    let (writer, scribe) = prepare(connection, queue, retention, metrics);
    let thread = thread::Builder::new()
        .name("plexus-store".to_owned())
        .spawn(move || scribe.run())?;
    Ok((writer, thread))
}

fn prepare(
    connection: Connection,
    queue: usize,
    retention: Retention,
    metrics: Arc<Metrics>,
) -> (Writer, Scribe) {
    let (sender, receiver) = bounded(queue);
    let writer = Writer {
        sender,
        dropped: Arc::default(),
        answers: Waiting::default(),
        feed: Arc::default(),
        metrics: Arc::clone(&metrics),
    };
    let now = Instant::now();
    let scribe = Scribe {
        receiver,
        ledger: Ledger::new(connection, retention.debug_bytes),
        batch: Vec::with_capacity(BATCH),
        gathering_since: None,
        job: None,
        chores: VecDeque::new(),
        closing: None,
        last_row: now,
        pause: BACK_OFF.0,
        retention,
        retention_due: now + retention.delay,
        fold_after: now,
        dropped: Arc::clone(&writer.dropped),
        feed: Arc::clone(&writer.feed),
        drops_told: 0,
        drops: Throttle::default(),
        refusals: Throttle::default(),
        troubles: Throttle::default(),
        metrics,
    };
    (writer, scribe)
}

/// The thread's state.
struct Scribe {
    receiver: Receiver<Message>,
    ledger: Ledger,
    /// Rows taken from the queue and not committed.
    batch: Vec<Row>,
    /// When the first of them was taken.
    gathering_since: Option<Instant>,
    /// Taken from the queue after them.
    job: Option<Box<Job>>,
    chores: VecDeque<Chore>,
    closing: Option<Closing>,
    last_row: Instant,
    /// The next pause after a failure.
    pause: Duration,
    retention: Retention,
    retention_due: Instant,
    /// When rows may be put into blocks again.
    fold_after: Instant,
    dropped: Arc<AtomicU64>,
    feed: Arc<Feed>,
    drops_told: u64,
    drops: Throttle,
    refusals: Throttle,
    troubles: Throttle,
    metrics: Arc<Metrics>,
}

/// The thread is to end as soon as everything is written, or at that time.
struct Closing {
    until: Instant,
    job: Option<Box<Job>>,
}

impl Scribe {
    fn run(mut self) {
        self.seed_today();
        loop {
            self.gather();
            if self.is_due() && !self.commit() {
                if self.is_out_of_time() {
                    break;
                }
                self.back_off();
                continue;
            }
            if self.batch.is_empty()
                && let Some(job) = self.job.take()
            {
                self.perform(job);
            }
            let written = self.batch.is_empty() && self.receiver.is_empty();
            if self.closing.is_some() && (written || self.is_out_of_time()) {
                break;
            }
            self.report_drops();
            self.start_retention();
            if !self.fold() && !self.work_off() && self.receiver.len() < BATCH {
                self.rest();
            }
        }
        self.finish();
    }

    /// Takes what is in the queue, until the batch is full or a job comes.
    fn gather(&mut self) {
        while self.batch.len() < BATCH && self.job.is_none() {
            match self.receiver.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    let until = Instant::now() + ABANDONED;
                    self.closing.get_or_insert(Closing { until, job: None });
                    return;
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        let row = match message {
            Message::Usage(row) => {
                self.metrics.observe(&*row);
                Row::Usage(row)
            }
            Message::Error(row) => Row::Error(row),
            Message::Cooldown(row) => Row::Cooldown(row),
            Message::Quota(state) => Row::Quota(Box::new(state.row())),
            Message::Response(row, load) => Row::Response(row, load),
            Message::Capture(seal) => match seal() {
                Some(row) => Row::Capture(row),
                None => return,
            },
            Message::Job(job) => {
                self.job = Some(job);
                return;
            }
        };
        if self.batch.is_empty() {
            self.gathering_since = Some(Instant::now());
        }
        self.batch.push(row);
    }

    fn is_due(&self) -> bool {
        !self.batch.is_empty()
            && (self.batch.len() >= BATCH
                || self.job.is_some()
                || self.closing.is_some()
                || self
                    .gathering_since
                    .is_none_or(|since| since.elapsed() >= GATHER))
    }

    /// Commits the batch; if that fails, the batch stays.
    fn commit(&mut self) -> bool {
        match self.ledger.commit(&self.batch) {
            Ok(written) => {
                if written.refused > 0 {
                    self.metrics.rows_failed(written.refused);
                    if self.refusals.may_speak() {
                        let reason = written.reason.unwrap_or_default();
                        tracing::error!(rows = written.refused, reason, "log rows were refused");
                    }
                }
                self.announce();
                self.batch.clear();
                self.gathering_since = None;
                self.last_row = Instant::now();
                self.pause = BACK_OFF.0;
                true
            }
            Err(error) => {
                self.complain(&error);
                false
            }
        }
    }

    /// Tells the feed which requests are over. What it has no room for is not
    /// even read.
    fn announce(&self) {
        if !self.feed.is_heard() {
            return;
        }
        let now = now_ms();
        for row in &self.batch {
            let Row::Usage(row) = row else { continue };
            self.feed.tell(Kind::Completed, now, || {
                let connection = &self.ledger.connection;
                let record = usage::by_request(connection, row.request_id, None);
                Some(Event {
                    kind: Kind::Completed,
                    at_ms: now,
                    key: row.key.clone(),
                    data: serde_json::to_string(&record.ok()??).ok()?.into(),
                })
            });
        }
    }

    /// Does a job when all rows before it are committed.
    fn perform(&mut self, mut job: Box<Job>) {
        if job.is_late() {
            job.answer(Err(StoreError::Timeout));
            return;
        }
        match &mut job.work {
            Work::Flush => job.answer(Ok(0)),
            Work::Close => {
                let until = job.until;
                self.closing = Some(Closing {
                    until,
                    job: Some(job),
                });
            }
            Work::Once(task) => match self.ledger.transaction(task) {
                Ok(rows) => job.answer(Ok(rows)),
                Err(error) if super::ledger::is_circumstance(&error) => {
                    self.complain(&error);
                    self.job = Some(job);
                    self.back_off();
                }
                Err(error) => job.answer(Err(error.into())),
            },
            Work::Replace(vault, work) => {
                if let Some(work) = work.take() {
                    let answer = self.ledger.replace(vault, work);
                    job.answer(answer);
                }
            }
            Work::Sliced(_) => {
                let mut chore = Chore::asked(job);
                chore.goes_on();
                self.chores.push_back(chore);
            }
        }
    }

    /// Does a slice of the first chore; false when there is none.
    fn work_off(&mut self) -> bool {
        let Some(mut chore) = self.chores.pop_front() else {
            return false;
        };
        if chore.is_late() {
            chore.end(Err(StoreError::Timeout));
            return true;
        }
        let Some(task) = chore.task() else {
            return true;
        };
        match self.ledger.transaction(task) {
            Ok(0) => {
                if chore.rows > 0 && !chore.shrinks {
                    self.chores.push_back(Chore::shrinking());
                }
                let rows = chore.rows;
                chore.end(Ok(rows));
            }
            Ok(rows) => {
                self.pause = BACK_OFF.0;
                chore.rows += rows;
                chore.goes_on();
                self.chores.push_front(chore);
            }
            Err(error) if super::ledger::is_circumstance(&error) => {
                self.complain(&error);
                if chore.is_stuck() {
                    chore.end(Err(StoreError::Timeout));
                } else {
                    self.chores.push_front(chore);
                }
                self.back_off();
            }
            Err(error) => {
                tracing::error!(%error, "old rows could not be deleted");
                chore.end(Err(error.into()));
            }
        }
        true
    }

    /// Puts rows into a block when there are enough of them, and none are waiting
    /// to be committed; false when there was nothing to do.
    fn fold(&mut self) -> bool {
        if !self.batch.is_empty() || Instant::now() < self.fold_after {
            return false;
        }
        match self.ledger.fold(Fold::USUAL) {
            Ok(rows) => rows > 0,
            Err(error) => {
                // Rows are read one by one until it works again.
                self.fold_after = Instant::now() + FOLD_AGAIN;
                tracing::error!(%error, "usage rows could not be put into blocks");
                false
            }
        }
    }

    fn start_retention(&mut self) {
        if Instant::now() >= self.retention_due {
            self.retention_due = Instant::now() + RETENTION;
            self.chores.extend(self.retention.chores(now_ms()));
        }
    }

    /// Sleeps a little while rows come in, and until woken when none do.
    fn rest(&mut self) {
        if !self.batch.is_empty() || self.last_row.elapsed() < QUIET {
            thread::sleep(POLL);
            return;
        }
        if let Ok(message) = self.receiver.recv_deadline(self.retention_due) {
            self.last_row = Instant::now();
            self.take(message);
        }
    }

    fn back_off(&mut self) {
        self.report_drops();
        thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(BACK_OFF.1);
        if self.job.as_ref().is_some_and(|job| job.is_late())
            && let Some(job) = self.job.take()
        {
            self.refuse(&job);
        }
    }

    /// Answers a job whose time ran out before it could be begun. Closing goes
    /// on all the same: its rows have had their time.
    fn refuse(&mut self, job: &Job) {
        job.answer(Err(StoreError::Timeout));
        if matches!(job.work, Work::Close) {
            let until = job.until;
            self.closing = Some(Closing { until, job: None });
        }
    }

    fn is_out_of_time(&self) -> bool {
        let closing = self.closing.as_ref();
        closing.is_some_and(|closing| Instant::now() >= closing.until)
    }

    fn complain(&mut self, error: &rusqlite::Error) {
        if self.troubles.may_speak() {
            let rows = self.batch.len() + self.receiver.len();
            tracing::error!(%error, waiting = rows, "the log cannot be written, trying again");
        }
    }

    fn report_drops(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > self.drops_told && self.drops.may_speak() {
            let rows = dropped - self.drops_told;
            tracing::warn!(
                rows,
                total = dropped,
                "log rows were dropped: the queue is full"
            );
            self.drops_told = dropped;
        }
    }

    /// The day's figures go on where the last process stopped.
    fn seed_today(&self) {
        let now = now_ms();
        let midnight = self.metrics.midnight_ms(now);
        match usage::figures_since(&self.ledger.connection, midnight) {
            Ok(figures) => self.metrics.seed_today(now, &figures),
            Err(error) => tracing::warn!(%error, "today's figures begin at zero"),
        }
    }

    /// Counts what could not be written, and moves the rest of the write-ahead
    /// log into the file.
    fn finish(mut self) {
        let unwritten = self
            .receiver
            .try_iter()
            .filter(|m| !matches!(m, Message::Job(_)));
        let lost = self.batch.len() + unwritten.count();
        for _ in 0..lost {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.metrics.row_dropped();
        }
        if lost > 0 {
            tracing::error!(
                rows = lost,
                "the store closed before it could write its last rows"
            );
        }
        for chore in &mut self.chores {
            chore.end(Err(StoreError::Closed));
        }
        let checkpoint =
            self.ledger
                .connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            tracing::warn!(%error, "the write-ahead log stays beside the database");
        }
        if let Some(job) = self.closing.and_then(|closing| closing.job) {
            let answer = if lost > 0 {
                Err(StoreError::Timeout)
            } else {
                Ok(0)
            };
            job.answer(answer);
        }
    }
}

/// Work done in slices between batches.
struct Chore {
    from: Origin,
    rows: u64,
    shrinks: bool,
}

enum Origin {
    Asked(Box<Job>),
    Own(Task),
}

impl Chore {
    const fn asked(job: Box<Job>) -> Self {
        Self {
            from: Origin::Asked(job),
            rows: 0,
            shrinks: false,
        }
    }

    const fn unasked(task: Task) -> Self {
        Self {
            from: Origin::Own(task),
            rows: 0,
            shrinks: false,
        }
    }

    /// Gives pages that deleted rows left behind back to the file system.
    fn shrinking() -> Self {
        Self {
            from: Origin::Own(Box::new(shrink)),
            rows: 0,
            shrinks: true,
        }
    }

    fn task(&mut self) -> Option<&mut Task> {
        match &mut self.from {
            Origin::Own(task) => Some(task),
            Origin::Asked(job) => match &mut job.work {
                Work::Sliced(task) | Work::Once(task) => Some(task),
                Work::Flush | Work::Close | Work::Replace(..) => None,
            },
        }
    }

    fn is_late(&self) -> bool {
        matches!(&self.from, Origin::Asked(job) if Instant::now() >= job.until)
    }

    fn is_stuck(&self) -> bool {
        matches!(&self.from, Origin::Asked(job) if job.is_late())
    }

    /// A slice of it is done; the next has as long.
    fn goes_on(&mut self) {
        if let Origin::Asked(job) = &mut self.from {
            job.begun_by = Instant::now() + STUCK;
        }
    }

    fn end(&mut self, answer: Result<u64, StoreError>) {
        if let Origin::Asked(job) = &self.from {
            job.answer(answer);
        }
    }
}

/// Takes some free pages off the file's end; returns how many.
fn shrink(connection: &Connection) -> Result<u64, rusqlite::Error> {
    const PAGES: i64 = 256;
    let free = |connection: &Connection| {
        connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0))
    };
    let before = free(connection)?;
    if before < PAGES {
        return Ok(0);
    }
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut steps = statement.query([])?;
    while steps.next()?.is_some() {}
    drop(steps);
    Ok(u64::try_from(before - free(connection)?).unwrap_or(0))
}

/// Lets one line through a second.
#[derive(Default)]
struct Throttle(Option<Instant>);

impl Throttle {
    fn may_speak(&mut self) -> bool {
        let may = self
            .0
            .is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
        if may {
            self.0 = Some(Instant::now());
        }
        may
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const LIMIT: Duration = Duration::from_secs(60);
    const DAY_MS: i64 = 86_400_000;

    fn failure(date_ms: i64) -> Message {
        Message::Error(Box::new(ErrorRow {
            request_id: Uuid::new_v4(),
            date_ms,
            key: None,
            message: String::new(),
            details: String::new(),
        }))
    }

    fn scribe(retention: Retention) -> (Writer, Scribe) {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        prepare(connection, 4096, retention, Arc::default())
    }

    fn errors(scribe: &Scribe) -> i64 {
        let sql = "SELECT count(*) FROM errors";
        let connection = &scribe.ledger.connection;
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn retention_starts_when_it_is_due_and_deletes_a_slice_at_a_time() {
        let (writer, mut scribe) = scribe(Retention {
            error_days: 2,
            delay: Duration::from_secs(3600),
            ..Retention::default()
        });
        let now = now_ms();
        for i in 0..i64::from(SLICE) + 10 {
            writer.hand_over(failure(now - 3 * DAY_MS - i));
        }
        writer.hand_over(failure(now - DAY_MS));
        while !scribe.receiver.is_empty() {
            scribe.gather();
            assert!(scribe.commit());
        }
        scribe.start_retention();
        assert!(scribe.chores.is_empty(), "not due yet");
        scribe.retention_due = Instant::now();
        scribe.start_retention();
        assert_eq!(scribe.chores.len(), 2);
        assert!(scribe.work_off());
        assert_eq!(errors(&scribe), 11);
        assert!(scribe.work_off());
        assert_eq!(errors(&scribe), 1);
        while scribe.work_off() {}
        assert_eq!(errors(&scribe), 1);
    }

    #[test]
    fn zero_days_keep_for_ever() {
        let what_expires_by_itself = 1;
        let chores = Retention::default().chores(now_ms());
        assert_eq!(chores.len(), what_expires_by_itself);
    }

    #[test]
    fn a_batch_is_due_when_it_is_full_or_old() {
        let (writer, mut scribe) = scribe(Retention::default());
        assert!(!scribe.is_due(), "nothing to write");
        writer.hand_over(failure(1));
        scribe.gather();
        scribe.gathering_since = Some(Instant::now() + LIMIT);
        assert!(!scribe.is_due(), "young");
        scribe.gathering_since = Instant::now().checked_sub(GATHER);
        assert!(scribe.is_due(), "old");
        scribe.gathering_since = Some(Instant::now() + LIMIT);
        for _ in 0..BATCH + 5 {
            writer.hand_over(failure(1));
        }
        scribe.gather();
        assert_eq!(scribe.batch.len(), BATCH);
        assert!(scribe.is_due(), "full");
    }

    #[test]
    fn a_job_whose_time_ran_out_is_not_done() {
        let (_writer, mut scribe) = scribe(Retention::default());
        let (answer, answered) = bounded(1);
        let task: Task = Box::new(|_| panic!("it must not be done"));
        let until = Instant::now();
        scribe.perform(Box::new(Job {
            work: Work::Once(task),
            begun_by: until,
            until,
            answer,
        }));
        assert_eq!(answered.try_recv(), Ok(Err(StoreError::Timeout)));
    }

    #[test]
    fn the_thread_ends_when_nobody_can_send_any_more() {
        let (writer, scribe) = scribe(Retention::default());
        let thread = thread::spawn(move || scribe.run());
        writer.hand_over(failure(1));
        drop(writer);
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_waits_is_woken_by_a_row() {
        let (writer, mut scribe) = scribe(Retention::default());
        scribe.last_row = Instant::now().checked_sub(QUIET).unwrap();
        let resting = thread::spawn(move || {
            scribe.rest();
            scribe.batch.len()
        });
        writer.hand_over(failure(1));
        assert_eq!(resting.join().unwrap(), 1);
    }
}
