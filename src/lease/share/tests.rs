//! Whoever tells which stretch, the sum is what happened.

use proptest::prelude::*;

use super::*;
use crate::model::catalogue::celery::{TASK_DURATION, TASKS_STARTED};

fn samples(count: u64) -> Vec<Sample> {
    let histogram = Histogram { explicit: vec![count, 0], sum: count as f64, count, ..Histogram::default() };
    vec![Sample::count(&TASKS_STARTED, count), Sample::histogram(&TASK_DURATION, histogram)]
}

/// What was told of the counter, which the histogram must agree with.
fn told(share: &Share) -> u64 {
    let (mut count, mut of_histogram) = (0, 0);
    for sample in share.told() {
        match sample.value {
            SampleValue::Count(told) => count = told,
            SampleValue::Histogram(told) => {
                assert_eq!((told.explicit.iter().sum::<u64>(), told.sum), (told.count, told.count as f64));
                of_histogram = told.count;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(count, of_histogram);
    count
}

/// A replica that has counted `count` tasks less than the cluster had, as it started later.
struct Replica {
    share: Share,
    born: u64,
}

impl Replica {
    fn mark(&mut self, number: u64, of_cluster: u64) {
        self.share.mark(number, samples(of_cluster - self.born));
    }
}

#[test]
fn a_stretch_is_told_once_it_is_claimed_and_no_sooner() {
    let mut share = Share::new();
    assert_eq!(share.begin(None, samples(3)), Start::Exact);
    share.mark(1, samples(5));
    assert_eq!(told(&share), 0);
    share.claimed(1);
    assert_eq!(told(&share), 5, "all since the start: nobody spoke before");
    share.claimed(1);
    assert_eq!(told(&share), 5, "the same answer again");
}

#[test]
fn what_a_killed_holder_had_not_claimed_is_told_by_the_next() {
    let (mut first, mut second) = (Share::new(), Share::new());
    first.begin(None, samples(0));
    for share in [&mut first, &mut second] {
        share.mark(1, samples(10));
    }
    first.claimed(1);
    for share in [&mut first, &mut second] {
        share.mark(2, samples(17)); // and it is killed before its claim
    }
    assert_eq!(second.begin(Some(1), samples(20)), Start::Exact);
    second.mark(3, samples(25));
    second.claimed(3);
    assert_eq!(told(&first) + told(&second), 25);
}

#[test]
fn a_claim_whose_answer_was_lost_is_told_when_it_is_known() {
    let mut share = Share::new();
    share.begin(None, samples(0));
    share.mark(1, samples(4));
    share.mark(2, samples(6));
    share.claimed(2);
    assert_eq!(told(&share), 6);
    assert_eq!(share.begin(Some(2), samples(9)), Start::Exact, "a term of its own again");
    share.mark(3, samples(9));
    share.claimed(3);
    assert_eq!(told(&share), 9);
}

#[test]
fn who_started_after_the_last_claim_tells_all_that_it_has_counted() {
    let mut late = Share::new();
    late.mark(8, samples(2));
    assert_eq!(late.begin(Some(7), samples(3)), Start::Exact);
    late.mark(9, samples(4));
    late.claimed(9);
    assert_eq!(told(&late), 4);
}

#[test]
fn who_was_deaf_at_the_last_claim_leaves_a_gap_and_doubles_nothing() {
    let mut deaf = Share::new();
    deaf.mark(1, samples(10));
    deaf.gap();
    assert_eq!(deaf.begin(Some(2), samples(15)), Start::WithGap);
    deaf.mark(3, samples(16));
    deaf.claimed(3);
    assert_eq!(told(&deaf), 1);

    let mut forgetful = Share::new();
    (1..=9).for_each(|number| forgetful.mark(number, samples(number)));
    assert_eq!(forgetful.begin(Some(2), samples(9)), Start::WithGap);
    forgetful.claimed(9);
    assert_eq!(told(&forgetful), 3, "from the oldest mark that is known");
}

#[test]
fn a_redis_that_has_forgotten_the_claim_makes_nobody_tell_it_again() {
    let (mut holder, mut other) = (Share::new(), Share::new());
    holder.begin(None, samples(0));
    for share in [&mut holder, &mut other] {
        share.mark(1, samples(10));
        share.gap();
    }
    holder.claimed(1);
    let next = |share: &mut Share| {
        assert_eq!(share.begin(None, samples(12)), Start::Exact);
        let number = share.next(None);
        share.mark(number, samples(12));
        share.claimed(number);
        told(share)
    };
    assert_eq!((next(&mut holder), next(&mut other)), (12, 2));
}

#[test]
fn a_series_that_is_not_read_for_a_while_is_not_told_again() {
    let mut share = Share::new();
    share.begin(None, samples(0));
    for (number, samples) in [(1, samples(5)), (2, Vec::new()), (3, samples(6))] {
        share.mark(number, samples);
        share.claimed(number);
    }
    assert_eq!(told(&share), 6);
}

#[test]
fn what_a_server_had_counted_before_a_replica_began_is_not_its_to_tell() {
    use crate::model::catalogue::database::POSTGRESQL_COMMITS;
    let commits = |count| vec![Sample::count(&POSTGRESQL_COMMITS, count)];
    let mut late = Share::new();
    assert_eq!(late.begin(Some(7), Vec::new()), Start::Exact);
    for (number, count) in [(8, 1_000_000), (9, 1_000_004)] {
        late.mark(number, commits(count));
        late.claimed(number);
    }
    let told: Vec<_> = late.told().map(|sample| format!("{:?}", sample.value)).collect();
    assert_eq!(told, ["Count(4)"]);
}

proptest! {
    /// Replicas that start at any time, take over from each other at any time, and fail to claim at any time.
    #[test]
    fn the_sum_over_all_replicas_is_what_happened(
        steps in proptest::collection::vec((0_u64..9, 0_usize..3, prop::bool::ANY, prop::bool::ANY), 1..60),
    ) {
        let mut replicas = vec![Replica { share: Share::new(), born: 0 }];
        let (mut cluster, mut claimed, mut claimed_count, mut holder, mut failed) = (0, None, 0, usize::MAX, 0);
        for (tasks, wanted, starts, fails) in steps {
            cluster += tasks;
            if starts && replicas.len() < 3 {
                replicas.push(Replica { share: Share::new(), born: cluster });
            }
            let next = wanted % replicas.len();
            // what happened between the last claim and its start nobody can tell but those that lived then
            if next != holder && (replicas[next].born <= claimed_count || holder == usize::MAX) {
                holder = if holder == usize::MAX { 0 } else { next };
                let one = &mut replicas[holder];
                prop_assert_eq!(one.share.begin(claimed, samples(cluster - one.born)), Start::Exact);
            }
            let number = replicas[holder].share.next(None);
            replicas.iter_mut().for_each(|one| one.mark(number, cluster));
            // the first claim succeeds: that nothing was ever claimed cannot be told from a Redis that has forgotten
            failed = if fails && claimed.is_some() { failed + 1 } else { 0 };
            if (1..KEPT - 1).contains(&failed) {
                continue;
            }
            failed = 0;
            replicas[holder].share.claimed(number);
            (claimed, claimed_count) = (Some(number), cluster);
            let sum: u64 = replicas.iter().map(|one| told(&one.share)).sum();
            prop_assert_eq!(sum, cluster);
        }
    }
}
