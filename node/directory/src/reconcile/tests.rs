//! Two sides find their exact difference, whatever they hold; what it costs; and
//! what a hostile side can do.

use std::collections::BTreeSet;

use super::*;

type Records = BTreeSet<(u64, [u8; 32])>;

const NOW: u64 = 1_795_168_800_000;

fn record(random: &mut fastrand::Rng, dates: u64) -> (u64, [u8; 32]) {
    (NOW - random.u64(..dates), std::array::from_fn(|_| random.u8(..)))
}

/// Records of a day.
fn records(random: &mut fastrand::Rng, count: usize) -> Records {
    std::iter::repeat_with(|| record(random, 24 * 3600 * 1000)).take(count).collect()
}

fn snapshot(records: &Records) -> Snapshot {
    Snapshot::new(records.iter().map(|(at, id)| (UnixMillis(*at), RecId(*id))))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Cost {
    round_trips: usize,
    bytes: usize,
}

/// Reconciles, checks that the difference is exact, and tells what it took.
fn reconcile(ours: &Records, theirs: &Records, limits: [usize; 2]) -> Cost {
    let (asker, asked) = (snapshot(ours), snapshot(theirs));
    let (mut session, first) = Session::begin_within(asker, limits[0]);
    let (mut need, mut have, mut cost) = (BTreeSet::new(), 0, Cost::default());
    let mut next = Some(first);
    while let Some(message) = next {
        assert!(message.len() <= limits[0], "{} bytes", message.len());
        let answer = asked.answer_within(&message, limits[1]).expect("an honest message");
        assert!(answer.len() <= limits[1], "{} bytes", answer.len());
        cost.round_trips += 1;
        cost.bytes += message.len() + answer.len();
        let step = session.step(&answer).expect("an honest answer");
        have += step.have;
        for id in step.need {
            assert!(need.insert(id.0), "told twice");
        }
        next = step.next;
    }
    assert_eq!(session.step(&[]), Err(ReconcileError::Over));
    assert!(need.iter().eq(theirs.difference(ours).map(|(_, id)| id).collect::<BTreeSet<_>>()));
    assert_eq!(have, ours.difference(theirs).count());
    cost
}

const WHOLE: [usize; 2] = [RECONCILE_BYTES_MAX; 2];

#[test]
fn the_difference_is_exact_whatever_the_sets_and_the_limits() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let most = [0, 3, 40, 300, 1_500][random.usize(..5)];
        let counts: [usize; 3] = std::array::from_fn(|_| random.usize(..=most));
        // Also many records of one instant, where only their ids tell them apart.
        let dates = [1, 3, 1_000, 86_400_000][random.usize(..4)];
        let [both, ours, theirs] = counts.map(|count| {
            std::iter::repeat_with(|| record(&mut random, dates)).take(count).collect::<Records>()
        });
        let limits = [random.usize(4_096..=RECONCILE_BYTES_MAX), random.usize(4_096..=9_000)];
        reconcile(&(&both | &ours), &(&both | &theirs), limits);
    }
}

/// Removes `count` records that are spread at random.
fn without(records: &Records, count: usize, random: &mut fastrand::Rng) -> Records {
    let list: Vec<_> = records.iter().copied().collect();
    let gone: BTreeSet<_> = random.choose_multiple(list, count).into_iter().collect();
    records - &gone
}

#[test]
fn what_is_equal_is_settled_by_one_question() {
    let random = &mut fastrand::Rng::with_seed(1);
    let all = records(random, 10_000);
    assert_eq!(reconcile(&all, &all, WHOLE), Cost { round_trips: 1, bytes: 352 });
}

#[test]
fn one_of_10_000_costs_less_than_two_kilobytes() {
    let random = &mut fastrand::Rng::with_seed(1);
    let all = records(random, 10_000);
    let less = without(&all, 1, random);
    assert_eq!(reconcile(&less, &all, WHOLE), Cost { round_trips: 2, bytes: 1_146 });
    assert_eq!(reconcile(&all, &less, WHOLE), Cost { round_trips: 2, bytes: 1_081 });
}

#[test]
fn a_thousand_of_10_000_cost_less_than_200_kilobytes() {
    let random = &mut fastrand::Rng::with_seed(1);
    let all = records(random, 10_000);
    let less = without(&all, 1_000, random);
    assert_eq!(reconcile(&less, &all, WHOLE), Cost { round_trips: 3, bytes: 195_402 });
    let (ours, theirs) = (without(&all, 500, random), without(&all, 500, random));
    assert_eq!(reconcile(&ours, &theirs, WHOLE), Cost { round_trips: 3, bytes: 162_448 });
}

#[test]
fn full_replicas_that_share_nothing_come_to_an_end() {
    let random = &mut fastrand::Rng::with_seed(1);
    let [ours, theirs] = [(); 2].map(|()| records(random, REPLICA_ROWS_MAX));
    assert_eq!(reconcile(&ours, &theirs, WHOLE), Cost { round_trips: 19, bytes: 1_694_161 });
    let none = Records::new();
    assert_eq!(reconcile(&none, &theirs, WHOLE), Cost { round_trips: 18, bytes: 1_051_054 });
    assert_eq!(reconcile(&ours, &none, WHOLE), Cost { round_trips: 1, bytes: 464 });
}

/// Honest messages of every step of some sessions, and who they are for.
fn honest(seed: u64) -> Vec<(Snapshot, Vec<u8>, Vec<u8>)> {
    let random = &mut fastrand::Rng::with_seed(seed);
    let all = records(random, 600);
    let (ours, theirs) = (without(&all, 30, random), without(&all, 30, random));
    let (mut session, first) = Session::begin(snapshot(&ours));
    let asked = snapshot(&theirs);
    let mut messages = Vec::new();
    let mut next = Some(first);
    while let Some(message) = next {
        let answer = asked.answer(&message).expect("an honest message");
        next = session.step(&answer).expect("an honest answer").next;
        messages.push((asked.clone(), message, answer));
    }
    messages
}

/// Takes hostile bytes on both sides; whether any side believed them.
fn survives(snapshot: &Snapshot, bytes: &[u8]) -> bool {
    let answered = snapshot.answer(bytes);
    if let Ok(answer) = &answered {
        assert!(answer.len() <= RECONCILE_BYTES_MAX);
    }
    let (mut session, _) = Session::begin(snapshot.clone());
    let stepped = session.step(bytes);
    if let Ok(step) = &stepped {
        assert!(step.need.len() <= NEEDS_MAX);
    } else {
        assert_eq!(session.step(bytes), Err(ReconcileError::Over));
    }
    answered.is_ok() || stepped.is_ok()
}

#[test]
fn hostile_bytes_are_refused_or_harmless() {
    let mut believed = 0;
    for (snapshot, message, answer) in honest(1) {
        for bytes in [&message, &answer] {
            for end in 0..bytes.len() {
                believed += usize::from(survives(&snapshot, &bytes[..end]));
            }
        }
    }
    // Where a range ends, a message may end too.
    assert!(believed > 0);
    let random = &mut fastrand::Rng::with_seed(2);
    let messages = honest(3);
    for _ in 0..5_000 {
        let (snapshot, message, answer) = &messages[random.usize(..messages.len())];
        let mut bytes = if random.bool() { message.clone() } else { answer.clone() };
        for _ in 0..random.usize(1..4) {
            if let Some(byte) = random.choice(&mut bytes) {
                *byte = random.u8(..);
            }
        }
        survives(snapshot, &bytes);
    }
    for _ in 0..5_000 {
        let mut bytes: Vec<u8> = vec![0; random.usize(..400)];
        random.fill(&mut bytes);
        // Small numbers are what lengths, modes and counts look like.
        bytes.iter_mut().for_each(|byte| *byte = if random.bool() { *byte % 4 } else { *byte });
        if let Some(first) = bytes.first_mut() {
            *first = 0x61;
        }
        survives(&messages[0].0, &bytes);
    }
}

/// A message of these parts.
fn message(parts: &[&[u8]]) -> Vec<u8> {
    [&[0x61], parts.concat().as_slice()].concat()
}

#[test]
fn every_rule_of_the_form_is_checked() {
    let some = snapshot(&records(&mut fastrand::Rng::with_seed(1), 100));
    let refused = |bytes: &[u8]| some.answer(bytes).expect_err("a breach");
    assert_eq!(refused(&vec![0x61; RECONCILE_BYTES_MAX + 1]), ReconcileError::TooLong(61_441));
    assert_eq!(refused(&[0x62]), ReconcileError::Version);
    // A whole range that is listed as empty, then as empty up to a later bound.
    assert!(some.answer(&message(&[&[0, 0, 2, 0]])).is_ok());
    assert!(some.answer(&message(&[&[9, 0, 2, 0], &[9, 0, 2, 0]])).is_ok());
    assert!(some.answer(&message(&[&[9, 1, 7, 0], &[1, 1, 7, 0]])).is_ok());
    for malformed in [
        &[][..],
        // Nothing after a date, after the length of an id, after a mode.
        &message(&[&[1]]),
        &message(&[&[1, 0]]),
        &message(&[&[1, 0, 1]]),
        // A fingerprint and an id that are cut short, an id that is too long.
        &message(&[&[1, 0, 1], &[0; 15]]),
        &message(&[&[1, 0, 2, 1], &[0; 31]]),
        &message(&[&[1, 33], &[0; 33], &[0]]),
        // An unknown mode, and numbers of needless or too many bytes.
        &message(&[&[1, 0, 3]]),
        &message(&[&[0x80, 1, 0, 0]]),
        &message(&[&[0xff; 10], &[0, 0]]),
        // More ids than there can be bytes.
        &message(&[&[1, 0, 2], &[0xff, 0xff, 0xff, 0xff, 0x7f]]),
        &message(&[&[1, 0, 2, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]]),
        // A bound below the one before.
        &message(&[&[9, 1, 7, 0], &[1, 1, 6, 0]]),
        &message(&[&[0, 0, 0], &[0, 1, 1, 0], &[0, 0, 0]]),
    ] {
        assert_eq!(refused(malformed), ReconcileError::Malformed, "{malformed:?}");
    }
    let ranges = [[1, 0, 0]; RANGES_MAX + 1].concat();
    assert!(some.answer(&message(&[&ranges[3..]])).is_ok());
    assert_eq!(refused(&message(&[&ranges])), ReconcileError::TooManyRanges);
}

#[test]
fn a_peer_that_leads_nowhere_is_left() {
    let all = records(&mut fastrand::Rng::with_seed(1), 1_000);
    let (mut session, _) = Session::begin(snapshot(&all));
    // Everything differs, it says: that asks for what we have said already.
    let nothing_new = session.step(&message(&[&[0, 0, 1], &[7; 16]]));
    assert_eq!(nothing_new, Err(ReconcileError::NoProgress));
    assert_eq!(session.step(&[]), Err(ReconcileError::Over));

    // Another doubt each time.
    let (mut session, _) = Session::begin(snapshot(&all));
    for step in 1..=STEPS_MAX {
        let date = u8::try_from(step + 1).expect("few");
        let doubt = message(&[&[date, 0, 0], &[0, 0, 1], &[7; 16]]);
        let result = session.step(&doubt);
        assert_eq!(result.is_ok(), step < STEPS_MAX);
        if let Err(error) = result {
            assert_eq!(error, ReconcileError::TooManySteps);
        }
    }
}

#[test]
fn what_is_told_twice_counts_once() {
    let (mut session, _) = Session::begin(snapshot(&Records::new()));
    for (date, need) in [(2, vec![RecId([5; 32])]), (3, vec![])] {
        let told = message(&[&[date, 0, 2, 1], &[5; 32], &[0, 0, 1], &[7; 16]]);
        assert_eq!(session.step(&told).expect("an answer").need, need);
    }
}

#[test]
fn a_peer_that_invents_records_without_end_is_left() {
    let (mut session, _) = Session::begin(snapshot(&Records::new()));
    let random = &mut fastrand::Rng::with_seed(1);
    let (mut needs, mut date) = (0, 1);
    let error = loop {
        date += 1;
        let ids: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1_900 * 32).collect();
        let more = [date, 0, 2, 0x80 | 14, 108];
        let more = message(&[&more, &ids, &[0, 0, 1], &[random.u8(..); 16]]);
        match session.step(&more) {
            Ok(step) => needs += step.need.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ReconcileError::TooManyNeeds);
    assert!(needs <= NEEDS_MAX);
}
