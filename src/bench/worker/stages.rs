//! The stages of a worker's run: read back what the log knows, warm up, measure, read back what was written.

use super::{Kind, Pace, Stage, Stopped, Target, Time, Window, Worker};

/// Turns between two looks of the progress display at this worker.
const PUBLISH_EVERY: u32 = 64;

impl<T: Target> Worker<T> {
    pub(super) fn stages(&mut self) -> Result<(), Stopped> {
        if self.plan.passes.before {
            self.read_back(Stage::ReadBefore)?;
        }
        if self.plan.passes.prefill {
            self.prefill()?;
        }
        if self.plan.passes.workload {
            self.load()?;
        }
        if self.plan.passes.after {
            self.read_back(Stage::ReadAfter)?;
        }
        Ok(())
    }

    /// The workload: warm-up, then the measured window, then everything under way is waited for.
    fn load(&mut self) -> Result<(), Stopped> {
        let begin = self.clock.now();
        let start = begin.after_ns(self.plan.warmup_ns);
        let end = self.plan.time_ns.map_or(Time(u64::MAX), |ns| start.after_ns(ns));
        self.window = Window { start, end, last_done: start };
        let ended = self.fill_window(begin).and_then(|()| self.wait_all());
        let until = if self.now < end { self.window.last_done } else { end };
        // Interrupted within the window: the time until now counts, also when nothing ended lately.
        let until = if ended.is_err() { self.now.min(end) } else { until };
        self.results.window_ns = until.since(start);
        self.results.turns_ns = self.results.window_ns;
        ended
    }

    fn fill_window(&mut self, begin: Time) -> Result<(), Stopped> {
        let mut pace = self.plan.rate.map(|rate| Pace::new(begin, rate));
        let (start, end) = (self.window.start, self.window.end);
        let mut left = self.plan.count.unwrap_or(u64::MAX);
        let mut turns = 0u32;
        while self.now < end && left > 0 {
            self.reap()?;
            let measured = self.now >= start;
            while left > 0 && self.may_start() {
                let started = match &mut pace {
                    Some(pace) if pace.due() > self.now => break,
                    Some(pace) => pace.due(),
                    None => self.now,
                };
                let verifier = &self.verifier;
                let (first, blocks) = (self.plan.first_lba, self.plan.unit_blocks);
                let place = |unit: u64| first + unit * u64::from(blocks);
                let free = |unit| verifier.as_ref().is_none_or(|v| v.is_free(place(unit), blocks));
                let Some(access) = self.workload.next(free) else { break };
                let (lba, blocks) = if access.kind == Kind::Flush { (0, 0) } else { (place(access.unit), blocks) };
                self.start(access.kind, lba, blocks, started);
                if let Some(pace) = &mut pace {
                    pace.advance();
                }
                left -= u64::from(measured && access.kind != Kind::Flush);
            }
            self.kick()?;
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(PUBLISH_EVERY) {
                self.publish_load(begin, left);
            }
        }
        Ok(())
    }

    fn publish_load(&self, begin: Time, left: u64) {
        let stage = if self.now < self.window.start { Stage::Warmup } else { Stage::Timed };
        match (self.plan.count, self.plan.time_ns) {
            (Some(count), None) => self.publish(stage, count - left, count),
            (_, time) => self.publish(stage, self.now.since(begin), self.plan.warmup_ns + time.unwrap_or(0)),
        }
    }

    /// Nothing that happens from here on is measured.
    fn close_window(&mut self) {
        self.window = Window { start: Time(u64::MAX), end: Time(u64::MAX), last_done: Time(0) };
    }

    /// Writes every unit of the part once, in order.
    fn prefill(&mut self) -> Result<(), Stopped> {
        self.close_window();
        let (mut unit, blocks) = (0, self.plan.unit_blocks);
        let mut turns = 0u32;
        while unit < self.plan.units {
            self.reap()?;
            while unit < self.plan.units && self.may_start() {
                let (lba, now) = (self.plan.first_lba + unit * u64::from(blocks), self.now);
                self.start(Kind::Write, lba, blocks, now);
                unit += 1;
            }
            self.kick()?;
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(PUBLISH_EVERY) {
                self.publish(Stage::Prefill, unit, self.plan.units);
            }
        }
        self.wait_all()
    }

    /// Reads every block that was ever written, in order, and judges it.
    fn read_back(&mut self, stage: Stage) -> Result<(), Stopped> {
        self.close_window();
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let (first, total) = (verifier.ledger().first(), verifier.ledger().len());
        let mut next = Some(first);
        let mut turns = 0u32;
        while next.is_some() {
            self.reap()?;
            while let (Some(from), true) = (next, self.may_start()) {
                let ledger = self.verifier.as_ref().expect("checked above").ledger();
                next = ledger.next_written(from);
                let Some(lba) = next else { break };
                let most = u64::from(self.plan.unit_blocks);
                let blocks = (1..most).find(|n| !ledger.is_written(lba + n)).unwrap_or(most);
                self.results.read_back += blocks;
                next = Some(lba + blocks);
                let now = self.now;
                self.start(Kind::Read, lba, blocks as u32, now);
            }
            self.kick()?;
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(PUBLISH_EVERY) {
                self.publish(stage, next.map_or(total, |at| at - first), total);
            }
        }
        self.wait_all()
    }

    /// Waits for everything under way, at most the plan's drain time.
    fn wait_all(&mut self) -> Result<(), Stopped> {
        let give_up = self.now.after_ns(self.plan.drain_ns);
        while self.under_way() > 0 {
            self.reap()?;
            self.hand_over();
            self.kick()?;
            if self.now > give_up {
                return Err(Stopped::Unanswered(self.under_way()));
            }
        }
        Ok(())
    }

    /// After the stages, however they ended: what is still under way is given the drain time, and what does not come
    /// back then counts as failed.
    pub(super) fn drain(&mut self) -> Option<Stopped> {
        if let Some((request, payload)) = self.deferred.take() {
            if let (Some(verifier), Kind::Write) = (&mut self.verifier, request.kind) {
                verifier.end_write(request.lba, request.blocks, false);
            }
            if let Some(buf) = payload {
                self.target.pool().put(buf);
            }
            self.idle.push(request.slot).expect("the slot was taken for it");
        }
        let give_up = self.now.after_ns(self.plan.drain_ns);
        while self.under_way() > 0 && self.now <= give_up {
            match self.reap() {
                // The wish to stop is what brought us here; answers still count.
                Ok(()) | Err(Stopped::Asked) => self.target.kick(self.now),
                Err(_) => break,
            }
        }
        let unanswered = self.under_way();
        self.results.errors += unanswered as u64;
        (unanswered > 0).then_some(Stopped::Unanswered(unanswered))
    }
}
