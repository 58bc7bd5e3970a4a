use super::*;
use futures::io::Cursor;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use std::net::Ipv4Addr;

fn block(n: u8) -> Option<Block> {
    Source::of(Ipv4Addr::new(8, 8, n, 1).into()).map(Source::block)
}

/// Takes what there is until `end`, a buffer at a time, as a stream does.
fn take(
    bandwidth: &mut Bandwidth,
    block: Option<Block>,
    (mut now, end): (Instant, Instant),
) -> u64 {
    let mut taken = 0;
    while now < end {
        match bandwidth.room(block, Way::In, 16 * 1024, now) {
            Ok(bytes) => {
                assert!(bytes > 0, "it would spin");
                bandwidth.spend(block, Way::In, bytes, now);
                taken += bytes as u64;
            }
            Err(wait) => {
                assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2), "{wait:?}");
                now += wait;
            }
        }
    }
    taken
}

#[test]
fn a_block_gets_its_share_and_all_together_get_what_there_is() {
    let start = Instant::now();
    let limits = BandwidthLimits { total: 100_000, per_block: 10_000 };
    let mut bandwidth = Bandwidth::new(limits, start);
    let span = (start, start + Duration::from_secs(10));
    let one = take(&mut bandwidth, block(1), span);
    assert!((100_000..=110_000).contains(&one), "{one}");
    // The other way is another budget, and so is the next block's.
    assert!(bandwidth.room(block(1), Way::Out, 1, span.1).is_ok());
    let later = (span.1, span.1 + Duration::from_secs(10));
    let near = take(&mut bandwidth, None, later);
    assert!((1_000_000..=1_100_000).contains(&near), "{near}");
    while let Ok(bytes) = bandwidth.room(None, Way::In, 16 * 1024, later.1) {
        bandwidth.spend(None, Way::In, bytes, later.1);
    }
    assert!(bandwidth.room(block(2), Way::In, 2000, later.1).is_err(), "there is nothing left");
}

#[test]
fn seeded_streams_never_get_more_than_the_rates_allow() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits =
            BandwidthLimits { total: random.u32(1..50_000), per_block: random.u32(1..20_000) };
        let start = Instant::now();
        let (mut bandwidth, mut now) = (Bandwidth::new(limits, start), start);
        let mut of: HashMap<Option<Block>, u64> = HashMap::new();
        for _ in 0..400 {
            now += Duration::from_millis(random.u64(0..100));
            let block = (random.u8(0..4) > 0).then(|| block(random.u8(0..3))).flatten();
            let wanted = random.usize(1..100_000);
            if let Ok(bytes) = bandwidth.room(block, Way::Out, wanted, now) {
                assert!((1..=wanted).contains(&bytes), "seed {seed}");
                bandwidth.spend(block, Way::Out, bytes, now);
                *of.entry(block).or_default() += bytes as u64;
            }
        }
        let most = |rate: u32| f64::from(rate) * (1.0 + (now - start).as_secs_f64()) + 1.0;
        assert!(of.values().sum::<u64>() as f64 <= most(limits.total), "seed {seed}");
        for (block, bytes) in of {
            let rate = if block.is_some() { limits.per_block } else { limits.total };
            assert!(bytes as f64 <= most(rate), "seed {seed}");
        }
    }
}

#[test]
fn blocks_are_bounded_and_only_the_rested_are_forgotten() {
    let start = Instant::now();
    let limits = BandwidthLimits { total: u32::MAX, per_block: 1000 };
    let mut bandwidth = Bandwidth::new(limits, start);
    let block = |n: usize| {
        let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
        Source::of(Ipv4Addr::new(8 + a, b, c, 1).into()).map(Source::block)
    };
    for n in 0..BLOCKS_MAX + 10 {
        bandwidth.spend(block(n), Way::In, 1000, start);
    }
    assert_eq!(bandwidth.blocks.len(), BLOCKS_MAX);
    assert!(bandwidth.room(block(0), Way::In, 1000, start).is_err(), "it was not forgotten");
    bandwidth.spend(block(BLOCKS_MAX), Way::In, 1000, start + Duration::from_secs(1));
    assert_eq!(bandwidth.blocks.len(), 1);
}

#[tokio::test]
async fn a_stream_waits_and_loses_nothing() {
    let limits = BandwidthLimits { total: 200_000, per_block: 100_000 };
    let throttle = Throttle::new(Some(limits), &mut Registry::default());
    let shared = throttle.0.unwrap();
    // What passes at once, and half a second's worth more.
    let bytes: Vec<u8> = (0..150_000_u32).map(|n| n as u8).collect();
    let stream = |inner| ThrottledStream {
        inner,
        shared: Arc::clone(&shared),
        block: block(1),
        waits: [None, None],
    };
    let mut read = Vec::new();
    stream(Cursor::new(bytes.clone())).read_to_end(&mut read).await.unwrap();
    assert_eq!(read, bytes);
    let mut sink = stream(Cursor::new(Vec::new()));
    sink.write_all(&bytes).await.unwrap();
    assert_eq!(sink.inner.into_inner(), bytes);
    assert!(shared.waits.iter().all(|waits| waits.get() > 0), "nobody had to wait");
}
