//! The replication commands.
//!
//! Source: `repl_scanner.l` and `repl_gram.y` in `src/backend/replication`. Keywords count in capitals only: in small
//! letters they are names, and what begins with a name is SQL. Options of `CREATE_REPLICATION_SLOT` have two forms, a list
//! of words up to version 14 and one in parentheses from 15 on; both are read.

use crate::error::ServerError;
use crate::lsn::{Lsn, TimelineId};

/// The longest name that a server keeps (`NAMEDATALEN` - 1); it cuts what is longer.
const MAX_NAME: usize = 63;

/// One command of a replication session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// `IDENTIFY_SYSTEM`.
    IdentifySystem,
    /// `SHOW` and the name of a setting.
    Show(String),
    /// `TIMELINE_HISTORY` and the timeline.
    TimelineHistory(TimelineId),
    /// `START_REPLICATION [SLOT name] [PHYSICAL] X/X [TIMELINE n]`.
    StartReplication {
        /// The slot to use.
        slot: Option<String>,
        /// The first byte to send.
        start: Lsn,
        /// The timeline to send; the newest one when not given.
        timeline: Option<TimelineId>,
    },
    /// `CREATE_REPLICATION_SLOT name [TEMPORARY] PHYSICAL [RESERVE_WAL]`.
    CreateSlot {
        /// Its name.
        name: String,
        /// Whether it ends with the session.
        temporary: bool,
        /// Whether the log is to be kept from now on.
        reserve: bool,
    },
    /// `READ_REPLICATION_SLOT name`.
    ReadSlot(String),
    /// `DROP_REPLICATION_SLOT name [WAIT]`.
    DropSlot {
        /// Its name.
        name: String,
        /// Whether to wait until nobody uses it.
        wait: bool,
    },
    /// A command that a real server knows and that a log alone cannot answer; how it begins.
    Unsupported(&'static str),
}

impl Command {
    /// Reads the text of a command. Never panics.
    ///
    /// # Errors
    /// What a server answers: 42601 for a wrong form, 0A000 for SQL.
    pub fn parse(text: &str) -> Result<Self, Box<ServerError>> {
        let mut words = Words { rest: text, peeked: None };
        let Token::Word(first) = words.next()? else { return Err(no_sql()) };
        let command = match first {
            "IDENTIFY_SYSTEM" => Self::IdentifySystem,
            "SHOW" => Self::Show(words.variable()?),
            "TIMELINE_HISTORY" => Self::TimelineHistory(words.timeline()?),
            "START_REPLICATION" => words.start_replication()?,
            "CREATE_REPLICATION_SLOT" => words.create_slot()?,
            "READ_REPLICATION_SLOT" => Self::ReadSlot(words.variable()?),
            "DROP_REPLICATION_SLOT" => Self::DropSlot { name: words.name()?, wait: words.take("WAIT")? },
            "BASE_BACKUP" => Self::Unsupported("BASE_BACKUP"),
            "UPLOAD_MANIFEST" => Self::Unsupported("UPLOAD_MANIFEST"),
            "ALTER_REPLICATION_SLOT" => Self::Unsupported("ALTER_REPLICATION_SLOT"),
            _ => return Err(no_sql()),
        };
        if matches!(command, Self::Unsupported(_)) {
            return Ok(command);
        }
        if words.peek()? == &Token::Sign(';') {
            words.next()?;
        }
        match words.next()? {
            Token::End => Ok(command),
            _ => Err(syntax("syntax error")),
        }
    }
}

/// An answer of severity ERROR, as a server writes it.
pub(super) fn error(sqlstate: &str, message: impl Into<String>) -> Box<ServerError> {
    Box::new(ServerError {
        severity: "ERROR".to_owned(),
        sqlstate: sqlstate.to_owned(),
        message: message.into(),
        ..ServerError::default()
    })
}

fn syntax(message: &str) -> Box<ServerError> {
    error("42601", message)
}

fn no_sql() -> Box<ServerError> {
    error("0A000", "cannot execute SQL commands in WAL sender for physical replication")
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    /// A word without quotes, as it stands.
    Word(&'a str),
    /// A name in double quotes, without them.
    Quoted(String),
    /// A string in single quotes, without them.
    Text(String),
    Number(&'a str),
    Position(&'a str),
    Sign(char),
    End,
}

struct Words<'a> {
    rest: &'a str,
    peeked: Option<Token<'a>>,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<Token<'a>, Box<ServerError>> {
        match self.peeked.take() {
            Some(token) => Ok(token),
            None => self.scan(),
        }
    }

    fn peek(&mut self) -> Result<&Token<'a>, Box<ServerError>> {
        let token = self.next()?;
        Ok(self.peeked.insert(token))
    }

    fn scan(&mut self) -> Result<Token<'a>, Box<ServerError>> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c', '\x0b']);
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        let count = |fits: fn(char) -> bool| self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        // The longest match wins, as in the server's scanner: `ab/12` is a position, `ab` a name, `12` a number.
        let high = count(|c| c.is_ascii_hexdigit());
        if high > 0
            && let Some(low) = self.rest[high..].strip_prefix('/')
        {
            let low = low.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(low.len());
            if low > 0 {
                return Ok(Token::Position(self.cut(high + 1 + low)));
            }
        }
        if first.is_ascii_digit() {
            let length = count(|c| c.is_ascii_digit());
            return Ok(Token::Number(self.cut(length)));
        }
        if first.is_ascii_alphabetic() || first == '_' || !first.is_ascii() {
            let length = count(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii());
            return Ok(Token::Word(self.cut(length)));
        }
        match first {
            '"' => Ok(Token::Quoted(self.quoted('"')?)),
            '\'' => Ok(Token::Text(self.quoted('\'')?)),
            _ => {
                self.cut(first.len_utf8());
                Ok(Token::Sign(first))
            }
        }
    }

    fn cut(&mut self, length: usize) -> &'a str {
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        token
    }

    /// What stands between two `quote`s; doubled inside it means itself.
    fn quoted(&mut self, quote: char) -> Result<String, Box<ServerError>> {
        let mut text = String::new();
        self.cut(1);
        loop {
            let Some(end) = self.rest.find(quote) else { return Err(syntax("unterminated quoted string")) };
            text.push_str(self.cut(end));
            self.cut(1);
            if !self.rest.starts_with(quote) {
                return Ok(text);
            }
            text.push_str(self.cut(1));
        }
    }

    /// Whether the next word is `keyword`; then it is taken.
    fn take(&mut self, keyword: &str) -> Result<bool, Box<ServerError>> {
        let found = *self.peek()? == Token::Word(keyword);
        if found {
            self.next()?;
        }
        Ok(found)
    }

    fn name(&mut self) -> Result<String, Box<ServerError>> {
        let mut name = match self.next()? {
            Token::Word(word) if !KEYWORDS.contains(&word) => word.to_ascii_lowercase(),
            Token::Quoted(name) => name,
            _ => return Err(syntax("syntax error")),
        };
        let end = (0..=name.len().min(MAX_NAME)).rev().find(|end| name.is_char_boundary(*end));
        name.truncate(end.unwrap_or(0));
        Ok(name)
    }

    fn variable(&mut self) -> Result<String, Box<ServerError>> {
        let mut name = self.name()?;
        while *self.peek()? == Token::Sign('.') {
            self.next()?;
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name)
    }

    fn timeline(&mut self) -> Result<TimelineId, Box<ServerError>> {
        match self.next()? {
            Token::Number(digits) => match digits.parse().ok().and_then(TimelineId::new) {
                Some(timeline) => Ok(timeline),
                None => Err(syntax(&format!("invalid timeline {digits}"))),
            },
            _ => Err(syntax("syntax error")),
        }
    }

    fn start_replication(&mut self) -> Result<Command, Box<ServerError>> {
        let slot = if self.take("SLOT")? { Some(self.name()?) } else { None };
        if slot.is_some() && *self.peek()? == Token::Word("LOGICAL") {
            return Ok(Command::Unsupported("START_REPLICATION ... LOGICAL"));
        }
        self.take("PHYSICAL")?;
        let start = match self.next()? {
            Token::Position(text) => text.parse().map_err(|_| syntax("invalid streaming start location"))?,
            _ => return Err(syntax("syntax error")),
        };
        let timeline = if self.take("TIMELINE")? { Some(self.timeline()?) } else { None };
        Ok(Command::StartReplication { slot, start, timeline })
    }

    fn create_slot(&mut self) -> Result<Command, Box<ServerError>> {
        let name = self.name()?;
        let temporary = self.take("TEMPORARY")?;
        if self.take("LOGICAL")? {
            return Ok(Command::Unsupported("CREATE_REPLICATION_SLOT ... LOGICAL"));
        }
        if !self.take("PHYSICAL")? {
            return Err(syntax("syntax error"));
        }
        let mut reserve = None;
        if *self.peek()? == Token::Sign('(') {
            self.next()?;
            loop {
                let option = match self.next()? {
                    Token::Word(word) => word.to_ascii_lowercase(),
                    Token::Quoted(name) => name,
                    _ => return Err(syntax("syntax error")),
                };
                let on = match self.peek()? {
                    Token::Sign(_) | Token::End => true,
                    _ => self.boolean()?,
                };
                set(&mut reserve, &option, on)?;
                match self.next()? {
                    Token::Sign(',') => {}
                    Token::Sign(')') => break,
                    _ => return Err(syntax("syntax error")),
                }
            }
        } else {
            while let Token::Word(word) = *self.peek()? {
                self.next()?;
                set(&mut reserve, &word.to_ascii_lowercase(), true)?;
            }
        }
        Ok(Command::CreateSlot { name, temporary, reserve: reserve.unwrap_or(false) })
    }

    /// The value of an option (`defGetBoolean` in define.c).
    fn boolean(&mut self) -> Result<bool, Box<ServerError>> {
        let text = match self.next()? {
            Token::Word(word) => word.to_ascii_lowercase(),
            Token::Text(text) => text.to_ascii_lowercase(),
            Token::Number(digits) => digits.to_owned(),
            _ => return Err(syntax("syntax error")),
        };
        match text.as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(syntax("reserve_wal requires a Boolean value")),
        }
    }
}

/// Words that are no names unless they are quoted.
const KEYWORDS: [&str; 21] = [
    "BASE_BACKUP",
    "IDENTIFY_SYSTEM",
    "READ_REPLICATION_SLOT",
    "SHOW",
    "TIMELINE",
    "START_REPLICATION",
    "CREATE_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT",
    "ALTER_REPLICATION_SLOT",
    "TIMELINE_HISTORY",
    "PHYSICAL",
    "RESERVE_WAL",
    "LOGICAL",
    "SLOT",
    "TEMPORARY",
    "TWO_PHASE",
    "EXPORT_SNAPSHOT",
    "NOEXPORT_SNAPSHOT",
    "USE_SNAPSHOT",
    "WAIT",
    "UPLOAD_MANIFEST",
];

fn set(reserve: &mut Option<bool>, option: &str, on: bool) -> Result<(), Box<ServerError>> {
    match option {
        "reserve_wal" if reserve.is_none() => {
            *reserve = Some(on);
            Ok(())
        }
        "reserve_wal" | "snapshot" | "two_phase" | "failover" | "export_snapshot" | "noexport_snapshot"
        | "use_snapshot" => Err(syntax("conflicting or redundant options")),
        _ => Err(error("XX000", format!("unrecognized option: {option}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str) -> String {
        Command::parse(text).unwrap_err().sqlstate
    }

    /// As `libpqwalreceiver.c`, `receivelog.c` and `streamutil.c` of versions 13 to 18 write them.
    #[test]
    fn what_receivers_send() {
        let start = |slot: Option<&str>, start: u64, timeline: Option<u32>| Command::StartReplication {
            slot: slot.map(str::to_owned),
            start: Lsn(start),
            timeline: timeline.and_then(TimelineId::new),
        };
        let create = |name: &str, temporary, reserve| Command::CreateSlot { name: name.into(), temporary, reserve };
        for (text, command) in [
            ("IDENTIFY_SYSTEM", Command::IdentifySystem),
            ("SHOW wal_segment_size", Command::Show("wal_segment_size".into())),
            ("SHOW data_directory_mode", Command::Show("data_directory_mode".into())),
            ("SHOW My.Setting;", Command::Show("my.setting".into())),
            ("TIMELINE_HISTORY 2", Command::TimelineHistory(TimelineId::new(2).unwrap())),
            ("START_REPLICATION 0/3000000 TIMELINE 1", start(None, 0x300_0000, Some(1))),
            ("START_REPLICATION SLOT \"s\" PHYSICAL A/0 TIMELINE 12", start(Some("s"), 0xa_0000_0000, Some(12))),
            ("START_REPLICATION SLOT \"s\" 0/0", start(Some("s"), 0, None)),
            ("CREATE_REPLICATION_SLOT \"s\" TEMPORARY PHYSICAL RESERVE_WAL", create("s", true, true)),
            ("CREATE_REPLICATION_SLOT \"s\" PHYSICAL", create("s", false, false)),
            ("CREATE_REPLICATION_SLOT \"s\" PHYSICAL (RESERVE_WAL)", create("s", false, true)),
            ("CREATE_REPLICATION_SLOT s TEMPORARY PHYSICAL ( RESERVE_WAL 'false' )", create("s", true, false)),
            ("READ_REPLICATION_SLOT s_1", Command::ReadSlot("s_1".into())),
            ("DROP_REPLICATION_SLOT \"s\"", Command::DropSlot { name: "s".into(), wait: false }),
            ("DROP_REPLICATION_SLOT \"a \"\"b\" WAIT", Command::DropSlot { name: "a \"b".into(), wait: true }),
            ("BASE_BACKUP ( LABEL 'x', MANIFEST 'yes' )", Command::Unsupported("BASE_BACKUP")),
            ("START_REPLICATION SLOT \"s\" LOGICAL 0/0 (x 'y')", Command::Unsupported("START_REPLICATION ... LOGICAL")),
        ] {
            assert_eq!(Command::parse(text).unwrap(), command, "{text}");
        }
    }

    #[test]
    fn the_longest_match_is_a_position() {
        assert_eq!(
            Command::parse("START_REPLICATION ab/CD").unwrap(),
            Command::StartReplication { slot: None, start: Lsn(0xab_0000_00cd), timeline: None }
        );
        assert_eq!(code("START_REPLICATION 123456789/0"), "42601");
        assert_eq!(code("START_REPLICATION 1/"), "42601");
    }

    #[test]
    fn names_are_cut_as_a_server_cuts_them() {
        let Command::ReadSlot(name) = Command::parse(&format!("READ_REPLICATION_SLOT \"{}\"", "é".repeat(40))).unwrap()
        else {
            panic!("no slot")
        };
        assert_eq!(name, "é".repeat(31));
    }

    #[test]
    fn other_text_is_refused_as_a_server_refuses_it() {
        for text in ["SELECT 1", "", ";", "identify_system", "'x'", "BEGIN", "IDENTIFY_SYSTEM_X"] {
            assert_eq!(code(text), "0A000", "{text}");
        }
        for text in [
            "IDENTIFY_SYSTEM x",
            "SHOW",
            "SHOW WAIT",
            "TIMELINE_HISTORY 0",
            "TIMELINE_HISTORY 4294967296",
            "TIMELINE_HISTORY x",
            "START_REPLICATION",
            "START_REPLICATION SLOT 0/0",
            "START_REPLICATION 0/0 TIMELINE",
            "DROP_REPLICATION_SLOT \"s",
            "CREATE_REPLICATION_SLOT s",
            "CREATE_REPLICATION_SLOT s PHYSICAL (",
            "CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL 7)",
            "CREATE_REPLICATION_SLOT s PHYSICAL TWO_PHASE",
            "CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL RESERVE_WAL",
        ] {
            assert_eq!(code(text), "42601", "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Command::parse(&text);
        }

        #[test]
        fn any_words_are_read_or_refused(words in prop::collection::vec(prop::sample::select(&[
            "START_REPLICATION", "CREATE_REPLICATION_SLOT", "DROP_REPLICATION_SLOT", "SHOW", "SLOT", "PHYSICAL", "LOGICAL",
            "TEMPORARY", "TIMELINE", "RESERVE_WAL", "WAIT", "0/0", "ab/", "1", "(", ")", ",", ".", ";", "\"é\"", "'", "\"",
        ][..]), 0..10), spaced: bool) {
            let _ = Command::parse(&words.join(if spaced { " " } else { "" }));
        }
    }
}
