use super::*;
use std::sync::atomic::{AtomicI64, Ordering};
use strata_store::seams::{Seams, System};

const DAY: i64 = 86_400;
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// A clock that tests move, in seconds.
struct Clock(AtomicI64);

impl Clock {
    fn set(&self, seconds: i64) {
        self.0.store(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Seams for Clock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    fn random(&self, buffer: &mut [u8]) {
        System::default().random(buffer);
    }
}

struct World {
    directory: tempfile::TempDir,
    clock: Arc<Clock>,
    catalog: Catalog,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Clock(AtomicI64::new(0)));
        let catalog = Catalog::open(&directory.path().join("catalog.db"), clock.clone()).unwrap();
        Self { directory, clock, catalog }
    }

    /// The catalog as the next start finds it.
    fn again(self) -> Self {
        let Self { directory, clock, catalog } = self;
        drop(catalog);
        let catalog = Catalog::open(&directory.path().join("catalog.db"), clock.clone()).unwrap();
        Self { directory, clock, catalog }
    }
}

fn get(until: i64) -> Claim {
    Claim::Get { hash: "ab".repeat(32), filename: Some("é.png".into()), media_type: "image/png".into(), until }
}

fn refusal(outcome: Result<Claim>) -> String {
    match outcome {
        Err(Error::Forbidden(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn ids(signer: &Signer) -> Vec<u64> {
    signer.keys().iter().map(|key| key.id).collect()
}

#[tokio::test]
async fn a_token_says_what_was_signed_until_it_expires() {
    let signer = Signer::open(&World::new().catalog).await.unwrap();
    for claim in [get(100), Claim::Put { upload_id: "upl_1".into(), until: 100 }] {
        let token = signer.sign(&claim).unwrap();
        assert!(token.starts_with("1."), "it names its key: {token}");
        assert_eq!(signer.open_token(&token, 100).unwrap(), claim);
        assert!(refusal(signer.open_token(&token, 101)).contains("expired"));
    }
}

#[tokio::test]
async fn a_changed_token_and_one_of_another_server_are_refused() {
    let ours = Signer::open(&World::new().catalog).await.unwrap();
    let token = ours.sign(&get(100)).unwrap();
    let (signed, tag) = token.rsplit_once('.').unwrap();
    let (_, claim) = signed.split_once('.').unwrap();
    let later = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&get(9_999_999_999)).unwrap());
    let forged = [
        format!("1.{later}.{tag}"),
        format!("{later}.{tag}"),
        format!("{claim}.{tag}"),
        format!("01.{claim}.{tag}"),
        format!("+1.{claim}.{tag}"),
        format!("x.{claim}.{tag}"),
        format!("1.1.{claim}.{tag}"),
        format!("{signed}."),
        signed.to_owned(),
        format!("{signed}.{}", &tag[..20]),
        String::new(),
        ".".into(),
        "..".into(),
        "x".repeat(MAX_TOKEN_BYTES + 1),
    ];
    for forged in forged {
        assert!(matches!(ours.open_token(&forged, 0), Err(Error::Forbidden(_))), "{forged}");
    }
    let theirs = Signer::open(&World::new().catalog).await.unwrap();
    assert!(theirs.open_token(&token, 0).is_err());
}

#[tokio::test]
async fn a_key_signs_for_its_time_and_verifies_until_its_last_url_has_expired() {
    let world = World::new();
    let signer = Signer::open(&world.catalog).await.unwrap();
    let rotated_at = 30 * DAY;
    world.clock.set(rotated_at - 1);
    signer.tend(&world.catalog, Some(MONTH)).await.unwrap();
    assert_eq!(ids(&signer), [1], "its time is not over");
    let last = signer.sign(&get(rotated_at - 1 + limits::MAX_PRESIGN_SECONDS)).unwrap();

    world.clock.set(rotated_at);
    signer.tend(&world.catalog, Some(MONTH)).await.unwrap();
    assert_eq!(ids(&signer), [1, 2]);
    assert!(signer.sign(&get(rotated_at)).unwrap().starts_with("2."));
    let end = rotated_at - 1 + limits::MAX_PRESIGN_SECONDS;
    assert!(signer.open_token(&last, end).is_ok(), "a URL works for its whole time");

    world.clock.set(end + 1);
    signer.tend(&world.catalog, Some(MONTH)).await.unwrap();
    let expired = refusal(signer.open_token(&last, end + 1));
    let forever = signer.sign(&get(i64::MAX)).unwrap();
    world.clock.set(end + 2 * 3600);
    signer.tend(&world.catalog, Some(MONTH)).await.unwrap();
    assert_eq!(ids(&signer), [2], "the old key is gone");
    let unknown = format!("7{}", forever.trim_start_matches('2'));
    for token in [&last, &unknown] {
        assert_eq!(refusal(signer.open_token(token, end)), expired, "a key that is not there answers as expired");
    }
    signer.tend(&world.catalog, None).await.unwrap();
    assert_eq!(ids(&signer), [2], "without a period nothing rotates by itself");
}

#[tokio::test]
async fn keys_that_have_ended_verify_nothing_before_they_are_swept() {
    let world = World::new();
    let signer = Signer::open(&world.catalog).await.unwrap();
    let token = signer.sign(&get(i64::MAX)).unwrap();
    signer.rotate(&world.catalog).await.unwrap();
    let until = signer.keys()[0].until.unwrap();
    assert!(signer.open_token(&token, until).is_ok());
    assert!(signer.open_token(&token, until + 1).is_err());
}

#[tokio::test]
async fn rotations_at_once_make_one_key_and_a_restart_finds_it() {
    let world = World::new();
    let signer = Signer::open(&world.catalog).await.unwrap();
    let before = signer.sign(&get(100)).unwrap();
    let (one, two) = tokio::join!(signer.rotate(&world.catalog), signer.rotate(&world.catalog));
    one.unwrap();
    two.unwrap();
    assert_eq!(ids(&signer), [1, 2]);
    let after = signer.sign(&get(100)).unwrap();
    let stamp = signer.stamp("test", &[b"x"]);

    // Another process that rotated at the same time is noticed.
    let other = Signer::open(&world.catalog).await.unwrap();
    other.rotate(&world.catalog).await.unwrap();
    signer.rotate(&world.catalog).await.unwrap();
    assert_eq!((ids(&signer), ids(&other)), (vec![1, 2, 3], vec![1, 2, 3]));

    let world = world.again();
    let signer = Signer::open(&world.catalog).await.unwrap();
    for token in [&before, &after] {
        assert!(signer.open_token(token, 100).is_ok(), "{token}");
    }
    assert_eq!(signer.stamp("test", &[b"x"]), stamp, "public keys stay");
}

#[tokio::test]
async fn the_single_key_of_an_older_version_becomes_the_first() {
    let world = World::new();
    let secret = "5a".repeat(32);
    let stored = secret.clone();
    world.catalog.write(move |tx| settings::set(tx, SECRET, &stored)).await.unwrap();
    let claim = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&get(100)).unwrap());
    let mut mac = Hmac::<Sha256>::new_from_slice(&hex::decode(secret).unwrap()).unwrap();
    mac.update(claim.as_bytes());
    let old = format!("{claim}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));

    let signer = Signer::open(&world.catalog).await.unwrap();
    assert_eq!(ids(&signer), [1]);
    assert_eq!(signer.open_token(&old, 100).unwrap(), get(100));
    signer.rotate(&world.catalog).await.unwrap();
    assert_eq!(signer.open_token(&old, 100).unwrap(), get(100));
    world.clock.set(2 * DAY);
    signer.tend(&world.catalog, None).await.unwrap();
    assert!(refusal(signer.open_token(&old, 100)).contains("expired"));
}

#[tokio::test]
async fn there_are_so_many_keys_and_no_more() {
    let world = World::new();
    let signer = Signer::open(&world.catalog).await.unwrap();
    let mut made = 1;
    let refused = loop {
        match signer.rotate(&world.catalog).await {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1_000);
    };
    assert!(matches!(refused, Error::Conflict(_)), "{refused}");
    assert_eq!(signer.keys().len(), made);
    world.clock.set(2 * DAY);
    signer.rotate(&world.catalog).await.unwrap();
    assert_eq!(signer.keys().len(), 2, "what has ended makes room");
}
