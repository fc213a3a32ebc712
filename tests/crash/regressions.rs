//! Seeds that once found a bug, with what it was. A change of the store's timing changes what a seed does, so where a bug
//! has a cause that can be told apart, a test beside the store names it too.

use crate::play;
use pollux::sim::Bench;

/// Of runs on ailing disks.
const AILING: [(u64, &str); 11] = [
    (4, "requests ended twice when their slice died"),
    (8, "cleaning looked into a window whose read had failed"),
    (14, "cleaning looked into a window whose read had failed"),
    (48, "a segment with a header that once read wrong was never cleaned again"),
    (54, "a livelock in cleaning"),
    (59, "one bad read of the log's tail cut acknowledged batches off"),
    (79, "a livelock in cleaning"),
    (1380, "a failed flush was told to one of the slices of a device only"),
    (1852, "cleaning marked blocks as lost that would have been readable a second later"),
    (1945, "a leaf given up behind a running checkpoint stayed in all later ones"),
    (3905, "cleaning waited for ever for a segment, because scattered checkpoint pages held too many"),
];

/// Of power cuts.
const POWER: [(u64, &str); 1] = [(75, "cleaning took the segments that a checkpoint needed to free others")];

#[test]
fn seeds_that_found_a_bug_find_nothing_any_more() {
    let mut bench = Bench::new();
    for (seed, was) in AILING {
        println!("seed {seed}: {was}");
        play(&mut bench, "ailing_disks", seed, |b| b.faulty(seed));
    }
    for (seed, was) in POWER {
        println!("seed {seed}: {was}");
        play(&mut bench, "power_cuts", seed, |b| b.enumerate(seed));
        play(&mut bench, "power_cuts", seed, |b| b.run(seed));
    }
}
