//! The body of an answer on its way: one event at a time, as fast or as slowly
//! as was asked for, and only as far.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use tokio::time::{Instant, Sleep, sleep_until};

use super::behaviour::{CutAt, Grain, Pace};
use super::plan::Plan;
use super::record::Exchange;
use super::script::Stamp;

/// An answer, or one of the server's own pages.
pub(super) type ReplyBody = Either<Reply, Full<Bytes>>;

/// Wait between two bytes that trickle, where no gap is asked for.
const TRICKLE: Duration = Duration::from_millis(1);

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Reply {
    plan: Arc<Plan>,
    stamp: Stamp,
    exchange: Exchange,
    next: usize,
    rest: Bytes,
    pacing: Option<Box<Pacing>>,
}

/// What is needed only when an answer does not leave at once and whole.
#[derive(Debug)]
struct Pacing {
    pace: Pace,
    cut: Option<CutAt>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The waits before the next event are over.
    waited: bool,
    silenced: bool,
    /// The next byte has to wait for this one to be flushed.
    flush: bool,
}

impl Reply {
    /// The body of an answer, which closes the exchange when it ends.
    pub(super) fn new(plan: Arc<Plan>, stamp: Stamp, mut exchange: Exchange) -> Self {
        exchange.bill.clone_from(&plan.bill);
        let plain = plan.cut.is_none() && plan.pace == Pace::default();
        let pacing = (!plain).then(|| {
            Box::new(Pacing {
                pace: plan.pace.clone(),
                cut: plan.cut,
                sleep: None,
                waited: false,
                silenced: false,
                flush: false,
            })
        });
        Self {
            plan,
            stamp,
            exchange,
            next: 0,
            rest: Bytes::new(),
            pacing,
        }
    }

    fn take_event(&mut self) -> Bytes {
        let event = self.plan.template.frame(self.next, &self.stamp);
        self.next += 1;
        event
    }

    fn is_over(&self) -> bool {
        self.rest.is_empty() && self.next >= self.plan.template.len()
    }

    fn hand_over(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.exchange.sent += data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// How many bytes may leave before the cut.
    fn allowance(&self) -> Option<u64> {
        let cut = self.pacing.as_ref()?.cut?;
        Some(cut.bytes.saturating_sub(self.exchange.sent))
    }

    fn poll_paced(
        &mut self,
        cx: &mut Context<'_>,
        mut pacing: Box<Pacing>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let poll = self.poll_with(cx, &mut pacing);
        self.pacing = Some(pacing);
        poll
    }

    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        pacing: &mut Pacing,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(pacing.poll_wait(cx));
        let allowance = pacing
            .cut
            .map(|cut| cut.bytes.saturating_sub(self.exchange.sent));
        if let (Some(0), Some(cut)) = (allowance, pacing.cut) {
            self.exchange.link().cut(cut.cut);
            return Poll::Pending;
        }
        if self.is_over() {
            return Poll::Ready(None);
        }
        if self.rest.is_empty() {
            ready!(pacing.poll_event(cx, self.next));
            self.rest = self.take_event();
        }
        let whole = self.rest.len();
        let allowed = allowance.map_or(whole, |allowance| {
            usize::try_from(allowance).unwrap_or(whole).min(whole)
        });
        let length = match pacing.pace.grain {
            Grain::Event => allowed,
            Grain::Byte | Grain::Trickle => allowed.min(1),
        };
        let data = self.rest.split_to(length);
        pacing.handed_over(self.rest.is_empty());
        self.hand_over(data)
    }
}

impl Pacing {
    /// Waits for the timer that is set, and for the flush of a single byte.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        if std::mem::take(&mut self.flush) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Waits until an event may leave.
    fn poll_event(&mut self, cx: &mut Context<'_>, index: usize) -> Poll<()> {
        if !self.waited {
            self.waited = true;
            let wait = match (index, self.pace.grain) {
                (0, _) => self.pace.first,
                (_, Grain::Trickle) => Duration::ZERO,
                (_, _) => self.pace.gap,
            };
            ready!(self.poll_sleep(cx, wait));
        }
        if let Some(silence) = self.pace.silence
            && silence.after <= index
            && !self.silenced
        {
            self.silenced = true;
            match silence.length {
                Some(length) => ready!(self.poll_sleep(cx, length)),
                None => {
                    self.silenced = false;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, wait: Duration) -> Poll<()> {
        if wait.is_zero() {
            return Poll::Ready(());
        }
        self.sleep = Some(Box::pin(sleep_until(Instant::now() + wait)));
        self.poll_wait(cx)
    }

    fn handed_over(&mut self, event_done: bool) {
        if event_done {
            self.waited = false;
        }
        match self.pace.grain {
            Grain::Event => {}
            Grain::Byte => self.flush = true,
            Grain::Trickle => {
                let wait = match self.pace.gap {
                    Duration::ZERO => TRICKLE,
                    gap => gap,
                };
                self.sleep = Some(Box::pin(sleep_until(Instant::now() + wait)));
            }
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(pacing) = this.pacing.take() {
            return this.poll_paced(cx, pacing);
        }
        if this.is_over() {
            return Poll::Ready(None);
        }
        let event = this.take_event();
        this.hand_over(event)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over() && self.allowance() != Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        if self.plan.sized {
            let size = self.plan.template.size() as u64;
            SizeHint::with_exact(size.saturating_sub(self.exchange.sent))
        } else {
            SizeHint::default()
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.exchange.finished = self.is_end_stream();
        // A body of announced length is dropped with its last byte, unasked.
        if let Some(cut) = self.plan.cut
            && self.is_over()
            && !self.exchange.finished
        {
            self.exchange.link().cut(cut.cut);
        }
        if let Some(after) = self.plan.close_after
            && self.exchange.finished
        {
            self.exchange.link().close_after(after);
        }
    }
}
