//! What a site's `robots.txt` lets this server read (RFC 9309).

/// The name that rules for this server are written under.
const AGENT: &str = "strata";
/// Lines that are looked at.
const MAX_LINES: usize = 5_000;

/// The rules that hold for this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Robots {
    /// Patterns of paths, and whether they may be read.
    rules: Vec<(String, bool)>,
}

impl Robots {
    /// Where nothing may be read.
    pub fn closed() -> Self {
        Self { rules: vec![("/".into(), false)] }
    }

    /// Takes the group of this server, or else that of all.
    pub fn parse(text: &str) -> Self {
        let mut own: Vec<(String, bool)> = Vec::new();
        let mut every: Vec<(String, bool)> = Vec::new();
        let (mut is_own, mut is_every, mut has_own) = (false, false, false);
        let mut in_names = false;
        for line in text.lines().take(MAX_LINES) {
            let line = line.split('#').next().unwrap_or_default();
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "user-agent" => {
                    if !in_names {
                        (is_own, is_every) = (false, false);
                    }
                    in_names = true;
                    is_own |= value.to_ascii_lowercase().split('/').next() == Some(AGENT);
                    is_every |= value == "*";
                    has_own |= is_own;
                }
                rule @ ("allow" | "disallow") => {
                    in_names = false;
                    // An empty `Disallow` forbids nothing.
                    if value.is_empty() {
                        continue;
                    }
                    let rule = (value.to_owned(), rule == "allow");
                    if is_own {
                        own.push(rule.clone());
                    }
                    if is_every {
                        every.push(rule);
                    }
                }
                _ => {}
            }
        }
        Self { rules: if has_own { own } else { every } }
    }

    /// Whether a path with its query may be read: the longest pattern counts, and of two equal ones the one that allows.
    pub fn allows(&self, path: &str) -> bool {
        let matching = self.rules.iter().filter(|(pattern, _)| matches(pattern, path));
        matching.max_by_key(|(pattern, allows)| (pattern.len(), *allows)).is_none_or(|(_, allows)| *allows)
    }
}

/// `*` stands for anything, `$` at the end for the end.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, to_the_end) = match pattern.strip_suffix('$') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return !to_the_end || rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() && to_the_end {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_of_the_own_group_counts() {
        let all =
            Robots::parse("User-agent: *\nDisallow: /private # not this\nAllow: /private/open\nDisallow: /*.pdf$\n");
        for (path, allowed) in
            [("/", true), ("/private/x", false), ("/private/open/x", true), ("/a/b.pdf", false), ("/a/b.pdf?x=1", true)]
        {
            assert_eq!(all.allows(path), allowed, "{path}");
        }
        let own =
            Robots::parse("User-agent: other\nUser-agent: Strata/1.0\nDisallow: /a\n\nUser-agent: *\nDisallow: /\n");
        assert!(own.allows("/b") && !own.allows("/a/c"));
        let named = Robots::parse("User-agent: strata\nDisallow:\n\nUser-agent: *\nDisallow: /");
        assert!(named.allows("/x"));
        assert!(Robots::parse("").allows("/x") && !Robots::closed().allows("/x"));
        assert!(Robots::parse("<html>not found</html>").allows("/x"));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, path, found) in [
            ("/a*b", "/axxb", true),
            ("/a*b", "/axx", false),
            ("/a*b$", "/a/b/b", true),
            ("/a*b$", "/ab/c", false),
            ("*", "/x", true),
            ("/x$", "/x", true),
            ("/x$", "/xy", false),
        ] {
            assert_eq!(matches(pattern, path), found, "{pattern} {path}");
        }
    }
}
