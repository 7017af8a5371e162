//! The files that a server is started with: `config.xml` and `users.xml` (for the library, `users.json` as well).
//!
//! All is said explicitly, and nothing is read from the system's own configuration. Both versions read the same files;
//! an element that one of them does not know it skips.

use std::fmt::Write as _;
use std::path::Path;

use super::version::ClickHouseVersion;

/// Ports on 127.0.0.1.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) native: u16,
    pub(super) interserver: u16,
}

/// What the caller wants to be in the files.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Elements of `config.xml`: a path such as `merge_tree/max_part_loading_threads`, and its text.
    pub(super) elements: Vec<(String, String)>,
    /// Text of `config.xml` as it is.
    pub(super) raw: Vec<String>,
    /// Settings of the default profile.
    pub(super) settings: Vec<(String, String)>,
    /// Users and passwords.
    pub(super) users: Vec<(String, String)>,
    /// Names of more disks, in directories of their own.
    pub(super) disks: Vec<String>,
}

/// Rolls up nothing that a test writes: all points keep their precision.
const GRAPHITE: &str = "<graphite_rollup>\
    <path_column_name>Path</path_column_name><time_column_name>Time</time_column_name>\
    <value_column_name>Value</value_column_name><version_column_name>Version</version_column_name>\
    <default><function>any</function><retention><age>0</age><precision>1</precision></retention></default>\
    </graphite_rollup>";

impl Wanted {
    /// `config.xml` of a server whose own files lie in `home` and whose data lies in `data`.
    pub(super) fn config(&self, version: ClickHouseVersion, home: &Path, data: &Path, ports: Ports) -> String {
        let mut root = Element::default();
        root.set("logger/level", "information");
        root.set("logger/console", "1");
        root.set("listen_host", "127.0.0.1");
        root.set("http_port", &ports.http.to_string());
        root.set("tcp_port", &ports.native.to_string());
        root.set("interserver_http_port", &ports.interserver.to_string());
        root.set("interserver_http_host", "127.0.0.1");
        root.set("path", &directory(data));
        root.set("tmp_path", &directory(&data.join("tmp")));
        root.set("user_files_path", &directory(&data.join("user_files")));
        root.set("format_schema_path", &directory(&data.join("format_schemas")));
        root.set("users_config", &home.join("users.xml").display().to_string());
        root.set("default_profile", "default");
        root.set("default_database", "default");
        root.set("timezone", "UTC");
        // Tests and engines that run as another account than the server read its files.
        root.set("umask", "022");
        // A server that stops waits for connections that nobody uses any more.
        root.set("keep_alive_timeout", "1");
        root.set("mark_cache_size", "67108864");
        if version == ClickHouseVersion::V26 {
            self.modern(&mut root, home, data);
        }
        for (path, value) in &self.elements {
            root.set(path, value);
        }
        let mut text = String::from("<?xml version=\"1.0\"?>\n<yandex>\n");
        root.write(&mut text);
        text.push_str(GRAPHITE);
        for raw in &self.raw {
            text.push_str(raw);
        }
        text.push_str("\n</yandex>\n");
        text
    }

    fn modern(&self, root: &mut Element, home: &Path, data: &Path) {
        // For users that are made by statements. The library has no such users.
        root.set("access_control_path", &directory(&data.join("access")));
        root.set("enable_system_unfreeze", "1");
        // A server keeps parts that were merged for this long; the library would remove them at once.
        root.set("merge_tree/old_parts_lifetime", "480");
        // Its complaint, many times in each second, that there is nothing to do would fill the log.
        root.set("logger/levels/logger/name", "BackgroundSchedulePool/BgSchPool");
        root.set("logger/levels/logger/level", "error");
        let backups = directory(&home.join("backups"));
        root.set("backups/allowed_path", &backups);
        root.set("backups/allowed_disk", "backups");
        root.set("storage_configuration/disks/backups/type", "local");
        root.set("storage_configuration/disks/backups/path", &backups);
        root.set("storage_configuration/policies/every/volumes/v0/disk", "default");
        for (n, disk) in self.disks.iter().enumerate() {
            let path = directory(&home.join("disks").join(disk));
            root.set(&format!("storage_configuration/disks/{disk}/type"), "local");
            root.set(&format!("storage_configuration/disks/{disk}/path"), &path);
            root.set(&format!("storage_configuration/policies/every/volumes/v{}/disk", n + 1), disk);
        }
    }

    /// `users.xml`: the user `default` without a password, and those that are wanted; all may do everything.
    pub(super) fn users(&self, version: ClickHouseVersion) -> String {
        let mut text = String::from("<?xml version=\"1.0\"?>\n<yandex>\n<profiles><default>");
        for (name, value) in &self.settings {
            let _ = write!(text, "<{name}>{}</{name}>", escaped(value));
        }
        text.push_str("</default></profiles>\n<quotas><default></default></quotas>\n<users>");
        for (name, password) in self.everyone() {
            let _ =
                write!(text, "<{name}><password>{}</password><networks><ip>::/0</ip></networks>", escaped(password));
            text.push_str("<profile>default</profile><quota>default</quota>");
            if version == ClickHouseVersion::V26 {
                text.push_str("<access_management>1</access_management>");
                text.push_str("<named_collection_control>1</named_collection_control>");
                text.push_str("<show_named_collections_secrets>1</show_named_collections_secrets>");
            }
            let _ = write!(text, "</{name}>");
        }
        text.push_str("</users>\n</yandex>\n");
        text
    }

    /// `users.json`: names and passwords for the front.
    pub(super) fn passwords(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let entries = self.everyone().map(|(name, password)| format!("{}: {}", quoted(name), quoted(password)));
        format!("{{{}}}\n", entries.collect::<Vec<_>>().join(", "))
    }

    fn everyone(&self) -> impl Iterator<Item = (&str, &str)> {
        let wanted = self.users.iter().map(|(name, password)| (name.as_str(), password.as_str()));
        std::iter::once(("default", "")).chain(wanted)
    }
}

/// A directory as the servers want it said.
fn directory(path: &Path) -> String {
    format!("{}/", path.display())
}

/// An element of XML with a text or with elements.
#[derive(Default)]
struct Element {
    text: String,
    children: Vec<(String, Self)>,
}

impl Element {
    /// Sets the text of the element at `path`, such as `merge_tree/max_parts`; what was said later wins.
    fn set(&mut self, path: &str, text: &str) {
        let mut at = self;
        for name in path.split('/') {
            let known = at.children.iter().position(|(known, _)| known == name);
            let index = known.unwrap_or_else(|| {
                at.children.push((name.to_owned(), Self::default()));
                at.children.len() - 1
            });
            at = &mut at.children[index].1;
        }
        at.text = text.to_owned();
    }

    fn write(&self, out: &mut String) {
        out.push_str(&escaped(&self.text));
        for (name, child) in &self.children {
            let _ = write!(out, "<{name}>");
            child.write(out);
            let _ = writeln!(out, "</{name}>");
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_nested_and_escaped_and_the_last_word_wins() {
        let mut root = Element::default();
        root.set("a/b", "1");
        root.set("c", "x");
        root.set("a/d", "y");
        root.set("a/b", "1 < 2");
        let mut text = String::new();
        root.write(&mut text);
        assert_eq!(text.replace('\n', ""), "<a><b>1 &lt; 2</b><d>y</d></a><c>x</c>");
    }

    #[test]
    fn passwords_are_json() {
        let wanted = Wanted { users: vec![("u".to_owned(), "a\"b\\".to_owned())], ..Wanted::default() };
        assert_eq!(wanted.passwords(), "{\"default\": \"\", \"u\": \"a\\\"b\\\\\"}\n");
    }
}
