//! Exploration (not committed).
use pollux::sim::faulty::Ailment;
use pollux::sim::sweep::Part;
use pollux::sim::{Bench, Failure, Swarm};
use std::time::Instant;
fn sweep(b: &mut Bench, swarm: &Swarm, stride: usize, sectors: bool) -> Result<(), Failure> {
    let mut small = swarm.clone();
    (small.slices, small.slice_bytes, small.requests) = (1, 2 << 20, 60);
    small.limits.segment_bytes = 64 << 10;
    small.limits.mark_idle_ns = 500_000;
    small.limits.scrub_bytes_per_sec = 0;
    small.space = small.space.min(40);
    let sp = b.specimen_swarm(small, swarm.seed.is_multiple_of(2))?;
    if sectors {
        return b.sweep_sectors(&sp).map(drop);
    }
    for part in [Part::Superblock, Part::Header, Part::Page, Part::Payload] {
        b.sweep_bits(&sp, part, stride)?;
    }
    Ok(())
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (mode, from, to) = (a[1].as_str(), a[2].parse::<u64>().unwrap(), a[3].parse::<u64>().unwrap());
    let verbose = a.len() > 4 && a[4] == "v";
    if !verbose {
        std::panic::set_hook(Box::new(|i| {
            eprintln!("   at {:?}", i.location().map(|l| format!("{}:{}", l.file(), l.line())));
        }));
    }
    let start = Instant::now();
    let mut total = Bench::new();
    let mut fails = 0;
    let modes: Vec<&str> = if mode == "all" {
        vec!["run", "enum", "errors", "reads", "write", "lying", "bits", "sectors"]
    } else {
        mode.split(',').collect()
    };
    for seed in from..to {
        for m in &modes {
            #[allow(unused_mut)]
            let mut swarm = Swarm::draw(seed);
            #[cfg(feature = "planted-bugs")]
            if let Ok(p) = std::env::var("PLANT") {
                swarm.limits.planted = pollux::store::planted::Planted::ALL.into_iter().find(|x| format!("{x:?}") == p);
            }
            let t = Instant::now();
            let r = total.guard(|b| match *m {
                "run" => b.run_swarm(&swarm),
                "enum" => {
                    let mut s = swarm.clone();
                    s.requests = s.requests.min(400);
                    b.enumerate_swarm(&s)
                }
                "errors" => b.faulty_swarm(&swarm, Ailment::Errors),
                "reads" => b.faulty_swarm(&swarm, Ailment::BadReads),
                "write" => b.faulty_swarm(&swarm, Ailment::BadWrite),
                "lying" => b.faulty_swarm(&swarm, Ailment::LyingFlushes),
                "bits" => sweep(b, &swarm, 256, false),
                "sectors" => sweep(b, &swarm, 256, true),
                _ => panic!("mode"),
            });
            let dt = t.elapsed().as_secs_f32();
            if dt > 5.0 {
                println!("slow {m} {seed}: {dt:.1}");
            }
            if let Err(f) = r {
                fails += 1;
                let s = f.to_string();
                println!("{m} {seed}: {}", &s[..s.len().min(if verbose { 5000 } else { 180 })]);
                if verbose {
                    println!("{swarm:?}");
                }
            }
        }
    }
    println!("{fails} failures, {:?} {:.1}s", total.tally, start.elapsed().as_secs_f32());
}
