//! A disk that keeps apart what processes see and what is on it for good, made of the changes that a test has watched.
//!
//! Strict where real disks may be kind: a file's bytes last from when the file is synced, a name from when its directory
//! is. Between two names in one directory a renaming is one step, as every journal makes it; between two directories it
//! is not.

use super::witness::{Change, Cut};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

/// Names of a directory and the numbers of their nodes.
type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone)]
enum Node {
    File {
        live: Vec<u8>,
        durable: Vec<u8>,
    },
    Dir {
        live: Names,
        durable: Names,
        /// What was done since the directory was synced; what is in one group happens together.
        pending: Vec<Vec<(String, Option<usize>)>>,
    },
}

/// Node 0 is the directory that is watched.
pub(super) struct Disk {
    nodes: Vec<Node>,
}

impl Disk {
    /// What is there, for good.
    pub(super) fn read(root: &Path) -> Self {
        let mut disk = Self { nodes: Vec::new() };
        disk.read_node(root);
        disk
    }

    fn read_node(&mut self, path: &Path) -> usize {
        let number = self.nodes.len();
        if !path.is_dir() {
            let bytes = std::fs::read(path).unwrap();
            self.nodes.push(Node::File { live: bytes.clone(), durable: bytes });
            return number;
        }
        self.nodes.push(empty_dir());
        let mut names = Names::new();
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let inner = self.read_node(&entry.path());
            names.insert(entry.file_name().into_string().unwrap(), inner);
        }
        self.nodes[number] = Node::Dir { live: names.clone(), durable: names, pending: Vec::new() };
        number
    }

    pub(super) fn change(&mut self, change: &Change, root: &Path) {
        let inner = |path: &Path| path.strip_prefix(root).unwrap().to_owned();
        let path = inner(change.path());
        match change {
            Change::MakeDir(_) => self.add(&path, empty_dir()),
            Change::Create(_) => self.add(&path, Node::File { live: Vec::new(), durable: Vec::new() }),
            Change::Write(_, bytes) => match self.node(&path) {
                Node::File { live, .. } => live.extend_from_slice(bytes),
                Node::Dir { .. } => panic!("`{}` is a directory", path.display()),
            },
            Change::SyncFile(_) => match self.node(&path) {
                Node::File { live, durable } => durable.clone_from(live),
                Node::Dir { .. } => panic!("`{}` is a directory", path.display()),
            },
            Change::SyncDir(_) => match self.node(&path) {
                Node::Dir { live, durable, pending } => {
                    durable.clone_from(live);
                    pending.clear();
                }
                Node::File { .. } => panic!("`{}` is a file", path.display()),
            },
            Change::Rename(_, to) => self.rename(&path, &inner(to)),
            Change::Remove(_) => self.link(&path, None),
            Change::RemoveTree(_) => self.remove_tree(&path),
        }
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        self.link(path, Some(self.nodes.len() - 1));
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let node = self.find(from);
        if from.parent() == to.parent() {
            let group = vec![(name_of(from), None), (name_of(to), Some(node))];
            self.name(from.parent().unwrap(), group);
        } else {
            self.link(to, Some(node));
            self.link(from, None);
        }
    }

    fn remove_tree(&mut self, path: &Path) {
        if let Node::Dir { live, .. } = self.node(path) {
            let names: Vec<String> = live.keys().cloned().collect();
            names.iter().for_each(|name| self.remove_tree(&path.join(name)));
        }
        self.link(path, None);
    }

    /// Lets a name lead to a node, or to nothing.
    fn link(&mut self, path: &Path, node: Option<usize>) {
        self.name(path.parent().unwrap(), vec![(name_of(path), node)]);
    }

    fn name(&mut self, directory: &Path, group: Vec<(String, Option<usize>)>) {
        let Node::Dir { live, pending, .. } = self.node(directory) else {
            panic!("`{}` is a file", directory.display())
        };
        apply(live, &group);
        pending.push(group);
    }

    fn node(&mut self, path: &Path) -> &mut Node {
        let number = self.find(path);
        &mut self.nodes[number]
    }

    /// The node that a path leads to, as processes see it.
    fn find(&self, path: &Path) -> usize {
        path.iter().fold(0, |number, name| match &self.nodes[number] {
            Node::Dir { live, .. } => *live
                .get(name.to_str().unwrap())
                .unwrap_or_else(|| panic!("`{}` was changed past the witness", path.display())),
            Node::File { .. } => panic!("`{}` leads through a file", path.display()),
        })
    }

    /// Writes what a cut leaves into an empty directory. The machine stands still for two days then.
    pub(super) fn leave(&self, cut: Cut, to: &Path) {
        let mut chance = Chance(match cut {
            Cut::Torn(seed) => seed,
            Cut::Strict | Cut::Killed => 0,
        });
        // What a file comes to is decided once, whatever leads to it.
        let mut files = BTreeMap::new();
        self.leave_node(0, cut, &mut chance, &mut files, to);
    }

    fn leave_node(
        &self,
        number: usize,
        cut: Cut,
        chance: &mut Chance,
        files: &mut BTreeMap<usize, Vec<u8>>,
        to: &Path,
    ) {
        match &self.nodes[number] {
            Node::File { live, durable } => {
                let bytes = files.entry(number).or_insert_with(|| match cut {
                    Cut::Strict => durable.clone(),
                    Cut::Killed => live.clone(),
                    Cut::Torn(_) => chance.tear(durable, live),
                });
                std::fs::write(to, bytes).unwrap();
                let file = std::fs::File::options().write(true).open(to).unwrap();
                file.set_modified(SystemTime::now() - Duration::from_secs(48 * 3600)).unwrap();
            }
            Node::Dir { live, durable, pending } => {
                let mut names = if matches!(cut, Cut::Killed) { live.clone() } else { durable.clone() };
                if matches!(cut, Cut::Torn(_)) {
                    pending.iter().filter(|_| chance.flip()).for_each(|group| apply(&mut names, group));
                }
                if !to.is_dir() {
                    std::fs::create_dir(to).unwrap();
                }
                for (name, inner) in names {
                    self.leave_node(inner, cut, chance, files, &to.join(name));
                }
            }
        }
    }
}

fn empty_dir() -> Node {
    Node::Dir { live: Names::new(), durable: Names::new(), pending: Vec::new() }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn apply(names: &mut Names, group: &[(String, Option<usize>)]) {
    for (name, node) in group {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

/// Chance that can be had again.
struct Chance(u64);

impl Chance {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// A file of which not everything was synced: as it was, whole, cut short, or as long as it should be with a hole.
    fn tear(&mut self, durable: &[u8], live: &[u8]) -> Vec<u8> {
        if durable == live {
            return live.to_vec();
        }
        let start = if live.starts_with(durable) { durable.len() } else { 0 };
        let at = start + (self.next() as usize) % (live.len() - start).max(1);
        match self.next() % 4 {
            0 => durable.to_vec(),
            1 => live.to_vec(),
            2 => live[..at].to_vec(),
            _ => {
                let mut holed = live.to_vec();
                holed[at..].iter_mut().take(512).for_each(|byte| *byte = 0);
                holed
            }
        }
    }
}
