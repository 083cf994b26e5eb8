//! An operator that leaves work for later epochs, and one behind it: the second never sees more of the watermark than the
//! first has done, and sees all of it in the end.

use super::*;

/// Does 20 microseconds of event time an epoch and leaves the rest; tells what it has done.
struct Slow {
    done: i64,
    told: Arc<Mutex<BTreeMap<Epoch, i64>>>,
}

impl Operator for Slow {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit(batch);
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.done = (self.done + 20).min(cx.watermark().0);
        if self.done < cx.watermark().0 {
            cx.leave_for_later(EventTime(self.done));
        }
        self.told.lock().unwrap().insert(cx.epoch(), self.done);
        Ok(())
    }
}

/// Notes the watermark at each epoch's end.
struct Note(Arc<Mutex<BTreeMap<Epoch, EventTime>>>);

impl Operator for Note {
    fn on_batch(&mut self, _: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.0.lock().unwrap().insert(cx.epoch(), cx.watermark());
        Ok(())
    }

    fn holds_watermark_within_epoch(&self) -> bool {
        true
    }
}

#[test]
fn what_is_left_for_later_holds_the_watermark_of_those_behind() {
    const EPOCHS: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).unwrap());
    let sink = Arc::new(Sink { parts: Mutex::default(), open_at: vec![AtomicU64::new(0)], broken: Arc::default() });
    let told: Arc<Mutex<BTreeMap<Epoch, i64>>> = Arc::default();
    let seen: Arc<Mutex<BTreeMap<Epoch, EventTime>>> = Arc::default();
    let (failure, results) = (Failure::default(), (told.clone(), seen.clone()));
    timely::execute_directly(move |worker| {
        let resume = Moment::new(Epoch(1), EventTime(0));
        let host = Host { worker: 0, peers: 1, store, sink, failure: failure.clone(), efforts: Arc::default(), resume };
        let probe = ProbeHandle::new();
        let dataflow = worker.next_dataflow_index();
        worker.dataflow::<Moment, _, _>(|scope| {
            let events = source(scope, (0, 1), 0..EPOCHS * STEPS_PER_EPOCH, false, Arc::default());
            let told = results.0.clone();
            let slow = operate("slow", events, Route::Pipeline, &host, |_| Ok(Box::new(Slow { done: 0, told })));
            for stream in slow.unwrap() {
                let seen = results.1.clone();
                let note = operate("note", stream, Route::Pipeline, &host, |_| Ok(Box::new(Note(seen))));
                note.unwrap().into_iter().for_each(|stream| drop(stream.probe_with(&probe)));
            }
        });
        let passed = |probe: &ProbeHandle<Moment>| probe.with_frontier(|f| Moment::meet(f.iter()).map(|m| m.epoch.0));
        while passed(&probe).is_some_and(|epoch| epoch <= EPOCHS) {
            worker.step();
            assert!(failure.get().is_none(), "{}", failure.get().unwrap());
        }
        worker.drop_dataflow(dataflow);
    });
    let (told, seen) = (told.lock().unwrap(), seen.lock().unwrap());
    assert_eq!(seen.len(), EPOCHS as usize);
    for (epoch, watermark) in seen.iter() {
        // What an operator is shown at an epoch's end may come from the end of the epoch before.
        assert!(watermark.0 <= told[epoch], "in {epoch:?} it saw {watermark:?}, when {} was done", told[epoch]);
    }
    // The log's watermark rises by 24 an epoch, so the slow one falls behind, and the other one with it.
    assert_eq!(told[&Epoch(EPOCHS)], 20 * EPOCHS as i64);
    assert!(seen[&Epoch(EPOCHS)].0 >= 20 * (EPOCHS as i64 - 1));
}
