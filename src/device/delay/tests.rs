use super::*;
use crate::base::Time;
use crate::device::testing::plain;
use crate::device::{NullQueue, NullSpec, Queue};

fn queue(latency: &Latency, depth: u32) -> (DelayQueue<NullQueue>, DelayHandle) {
    let handle = DelayHandle::new(latency);
    let inner = NullQueue::new(&NullSpec { size: 1 << 20, block: None, nofill: true }, depth);
    (DelayQueue::new(inner, handle.clone(), 5), handle)
}

fn latency(pairs: &[(&str, u64)]) -> Latency {
    let mut latency = Latency::default();
    for (key, ns) in pairs {
        *latency.slot(key).unwrap() = *ns;
    }
    latency
}

fn tokens(q: &mut DelayQueue<NullQueue>, now: u64) -> Vec<u64> {
    let mut dones = Vec::new();
    assert_eq!(q.poll(Time(now), &mut dones), dones.len());
    dones.iter().map(|d| d.token).collect()
}

#[test]
fn each_kind_takes_its_time_and_nothing_is_early() {
    let (mut q, _) = queue(&latency(&[("flush", 500), ("discard", 200)]), 8);
    q.submit(plain(OpKind::Flush, 0, 0, 1)).unwrap();
    q.submit(plain(OpKind::Discard, 0, 4096, 2)).unwrap();
    q.submit(plain(OpKind::WriteZeroes, 0, 4096, 3)).unwrap();
    q.kick();
    assert_eq!(q.wake_at(), Some(Time(0)), "the inner device has them ready");
    assert_eq!(tokens(&mut q, 1000), [3]);
    assert_eq!((q.wake_at(), q.inflight()), (Some(Time(1200)), 2));
    assert_eq!(tokens(&mut q, 1199), [0u64; 0]);
    assert_eq!(tokens(&mut q, 1200), [2]);
    assert_eq!((tokens(&mut q, 1499), tokens(&mut q, 9000)), (vec![], vec![1]));
    assert_eq!((q.wake_at(), q.inflight()), (None, 0));
}

#[test]
fn equal_times_keep_their_order_and_the_depth_holds() {
    let (mut q, _) = queue(&latency(&[("flush", 10)]), 3);
    for token in 0..3 {
        q.submit(plain(OpKind::Flush, 0, 0, token)).unwrap();
    }
    assert_eq!(tokens(&mut q, 5), [0u64; 0]);
    assert_eq!(q.submit(plain(OpKind::Flush, 0, 0, 9)).unwrap_err().token, 9, "held back is still under way");
    assert_eq!(tokens(&mut q, 15), [0, 1, 2]);
}

#[test]
fn one_percent_is_slow() {
    let (mut q, _) = queue(&latency(&[("flush", 10), ("flush_p99", 1000)]), 1);
    let mut slow = 0;
    for n in 0..20_000u64 {
        let now = n * 10_000;
        q.submit(plain(OpKind::Flush, 0, 0, n)).unwrap();
        assert!(tokens(&mut q, now).is_empty());
        if tokens(&mut q, now + 10).is_empty() {
            slow += 1;
            assert_eq!(tokens(&mut q, now + 1000), [n]);
        }
    }
    assert!((140..260).contains(&slow), "{slow}");
}

#[test]
fn latencies_change_while_it_runs() {
    let (mut q, handle) = queue(&Latency::default(), 4);
    assert_eq!(q.read_now(0, &mut [0; 4096]), Some(Ok(())));
    handle.set(&latency(&[("flush", 100)]));
    assert_eq!(handle.get(), latency(&[("flush", 100)]));
    assert_eq!((q.read_now(0, &mut [0; 4096]), q.write_now(0, &[0; 4096])), (None, None));
    q.submit(plain(OpKind::Flush, 0, 0, 1)).unwrap();
    assert!(tokens(&mut q, 0).is_empty());
    handle.set(&Latency::default());
    q.submit(plain(OpKind::Flush, 0, 0, 2)).unwrap();
    assert_eq!((tokens(&mut q, 1), tokens(&mut q, 100)), (vec![2], vec![1]));
}
