//! Disks without room: small ones that are mounted for a test, where this process may mount.

use crate::support::{Answer, Api, SOON, Server, wait_for};
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A disk in memory.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None` where this process may not mount: then there is nothing to test with.
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let size = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                eprintln!("not tested: a small disk cannot be mounted here: {other:?}");
                None
            }
        }
    }

    /// A server whose data lie on this disk.
    fn server(&self, arguments: &[&str]) -> Server {
        let place = self.dir.path().join("data");
        std::fs::create_dir(&place).expect("a directory on the disk");
        Server::start_on_with(|data| std::os::unix::fs::symlink(&place, data).expect("a link"), arguments)
    }

    /// Fills the disk with a file of this size, or of what there is room for.
    fn fill(&self, mebibytes: usize) -> PathBuf {
        let path = self.dir.path().join("filler");
        let mut file = std::fs::File::create(&path).expect("a file on the disk");
        let zeros = vec![0; 1 << 20];
        for _ in 0..mebibytes {
            if file.write_all(&zeros).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The process may still be closing its files.
        drop(Command::new("umount").arg("-l").arg(self.dir.path()).status());
    }
}

/// A client inside a new namespace, and the path of a bucket's objects.
fn bucket(server: &Server) -> (Api, String) {
    let admin = server.api();
    let body = json!({ "namespace_name": "disk", "feature_extractors": [] });
    let api = admin.within(admin.post("/v1/namespaces", body).text("/namespace_id"));
    let schema = json!({ "properties": { "content": { "type": "text" } } });
    let made = api.post("/v1/buckets", json!({ "bucket_name": "texts", "bucket_schema": schema }));
    let objects = format!("/v1/buckets/{}/objects", made.text("/bucket_id"));
    (api, objects)
}

/// Makes an object of so many bytes that no other has.
fn create(api: &Api, objects: &str, n: usize, bytes: usize) -> Answer {
    let text = format!("{n} ").repeat(bytes / 4);
    api.post(objects, json!({ "blobs": [{ "property": "content", "type": "text", "data": text }] }))
}

fn remove(filler: &Path) {
    std::fs::remove_file(filler).expect("the file is there");
}

#[test]
fn without_its_reserve_a_disk_takes_nothing_and_everything_is_read() {
    let Some(disk) = Disk::mount(400) else { return };
    let server = disk.server(&[]);
    let (api, objects) = bucket(&server);
    api.post("/v1/collections", json!({ "collection_name": "shelf" })).ok();
    let kept = create(&api, &objects, 0, 100).text("/object_id").to_owned();
    let other = create(&api, &objects, 1, 100).text("/object_id").to_owned();
    let document =
        api.post("/v1/collections/shelf/documents", json!({ "title": "one" })).text("/document_id").to_owned();
    let filler = disk.fill(250);
    let refused = wait_for("the disk to be full", SOON, || {
        let answer = create(&api, &objects, 2, 100);
        (answer.status == 507).then_some(answer)
    });
    assert_eq!(refused.text("/error/type"), "InsufficientStorageError");
    assert_eq!(api.post("/v1/collections/shelf/documents", json!({ "title": "two" })).status, 507);
    api.get(&format!("{objects}/{kept}")).ok();
    api.get(&format!("/v1/collections/shelf/documents/{document}")).ok();
    api.delete(&format!("{objects}/{other}")).ok();
    let health = api.get("/v1/health").ok();
    assert_eq!((&health["status"], &health["data"]["object_storage"]), (&Value::from("DEGRADED"), &Value::from(false)));
    remove(&filler);
    wait_for("room", SOON, || (create(&api, &objects, 3, 100).status == 200).then_some(()));
    api.post("/v1/collections/shelf/documents", json!({ "title": "three" })).ok();
    assert_eq!(api.list("/v1/collections/shelf/documents/list").len(), 2);
}

#[test]
fn a_disk_that_is_filled_to_the_brim_loses_nothing() {
    let Some(disk) = Disk::mount(64) else { return };
    let mut server = disk.server(&["--disk-reserve-mib", "0"]);
    let (api, objects) = bucket(&server);
    let filler = disk.fill(16);
    let mut kept = Vec::new();
    let refused = (0..200).map(|n| create(&api, &objects, n, 1 << 20)).find(|answer| match answer.status {
        200 => {
            kept.push(answer.text("/object_id").to_owned());
            false
        }
        _ => true,
    });
    let refused = refused.expect("200 MiB do not fit");
    assert_eq!((refused.status, refused.text("/error/type")), (507, "InsufficientStorageError"), "{}", refused.body);
    // What is left between the last object and the brim.
    let brim = std::fs::File::create(disk.dir.path().join("brim"));
    if let Ok(mut brim) = brim {
        while brim.write_all(&[0; 4096]).is_ok() {}
    }
    assert_eq!(create(&api, &objects, 1_000, 1 << 20).status, 507);
    let read = |api: &Api| {
        for id in &kept {
            let found = api.get(&format!("{objects}/{id}")).ok();
            assert_eq!(found["object_id"], id.as_str());
        }
    };
    read(&api);
    remove(&filler);
    wait_for("room", SOON, || (create(&api, &objects, 1_001, 1 << 10).status == 200).then_some(()));
    server.kill();
    server.start_again();
    read(&server.api().within("disk"));
}
