//! Clusters of ClickHouse on the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use backup_clickhouse::{ClickHouseCluster as Engine, ClickHouseSettings, ClusterSettings, MemberSettings, ObjectDisk};
use backup_core::{BackupEngine, Error, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::EngineKind;
use super::clickhouse::{ReadingArgs, WayArgs, misread, read_object_disk};

#[derive(Debug)]
pub(super) struct ClickHouseCluster;

/// The number of a shard and of a replica, as `2/1`.
type Numbers = (u32, u32);

/// Where the servers are. Their directories must be on this machine.
#[derive(Debug, Args)]
#[group(skip)]
struct MembersArgs {
    /// A server of the cluster by its shard and replica, both from 1 on, and its HTTP interface: 2/1=http://[user:password@]host[:port]. Given
    /// once for each server
    #[arg(long, value_name = "SHARD/REPLICA=URL", value_parser = member)]
    member: Vec<(Numbers, String)>,
    /// Where the data directory of a server is on this machine, when the server does not say or this machine sees it elsewhere
    #[arg(long, value_name = "SHARD/REPLICA=DIR", value_parser = directory)]
    data_dir: Vec<(Numbers, PathBuf)>,
    /// Where another disk of a server is on this machine
    #[arg(long, value_name = "SHARD/REPLICA:NAME=DIR", value_parser = disk)]
    disk: Vec<(Numbers, String, PathBuf)>,
    /// How the objects of an object disk of a server are reached: a file as for a single server
    #[arg(long, value_name = "SHARD/REPLICA:NAME=FILE", value_parser = object_disk)]
    object_disk: Vec<(Numbers, String, ObjectDisk)>,
    /// PEM file of the roots that are trusted [default: those of the system, where that was built in]
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// So many tables are worked on at a time, of each server
    #[arg(long, value_name = "NUMBER", default_value = "4")]
    parallel: NonZeroUsize,
}

/// The cluster that is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "ClickHouse options")]
#[group(skip)]
struct ClusterSource {
    #[command(flatten)]
    members: MembersArgs,
    /// By what the cluster is known, whatever the addresses of its servers [default: what all of them say of themselves]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// What the cluster is called in the servers' configuration: the shards and replicas that it has there must be those given here
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// The servers that are restored into: that of --into is 1/1, and there may be others. Each gets what the one of the same numbers had; with
/// fewer servers than the backup has, shards are dealt out to them and added to each other.
#[derive(Debug, Args)]
#[command(next_help_heading = "ClickHouse options")]
#[group(skip)]
struct ClusterTarget {
    #[command(flatten)]
    members: MembersArgs,
    #[command(flatten)]
    way: WayArgs,
}

fn numbers(text: &str) -> Option<Numbers> {
    let (shard, replica) = text.split_once('/')?;
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
    Some((number(shard)?, number(replica)?))
}

fn member(text: &str) -> Result<(Numbers, String), String> {
    let read = || text.split_once('=').and_then(|(name, url)| Some((numbers(name)?, url.to_owned())));
    read().ok_or_else(|| "must be SHARD/REPLICA=URL".to_owned())
}

fn directory(text: &str) -> Result<(Numbers, PathBuf), String> {
    let read = || text.split_once('=').and_then(|(name, dir)| Some((numbers(name)?, dir.into())));
    read()
        .filter(|(_, dir): &(_, PathBuf)| dir.is_absolute())
        .ok_or_else(|| "must be SHARD/REPLICA=DIR, where DIR is an absolute path".to_owned())
}

fn disk(text: &str) -> Result<(Numbers, String, PathBuf), String> {
    let read = || {
        let (server, rest) = text.split_once(':')?;
        let (name, dir) = rest.split_once('=')?;
        (!name.is_empty() && dir.starts_with('/')).then(|| Some((numbers(server)?, name.to_owned(), dir.into())))?
    };
    read().ok_or_else(|| "must be SHARD/REPLICA:NAME=DIR, where DIR is an absolute path".to_owned())
}

fn object_disk(text: &str) -> Result<(Numbers, String, ObjectDisk), String> {
    let read = || {
        let (server, rest) = text.split_once(':')?;
        let (name, file) = rest.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((numbers(server)?, name.to_owned(), file))
    };
    let (numbers, name, file) = read().ok_or_else(|| "must be SHARD/REPLICA:NAME=FILE".to_owned())?;
    Ok((numbers, name, read_object_disk(file)?))
}

impl MembersArgs {
    fn settings(self) -> Result<ClusterSettings> {
        let mut servers = Vec::new();
        for (numbers, url) in self.member {
            let mut settings = ClickHouseSettings::default().url(url).parallel(self.parallel.get());
            settings.tls_roots.clone_from(&self.tls_ca);
            servers.push((numbers, settings));
        }
        let unknown = |(shard, replica): Numbers| {
            Error::invalid(format!("{shard}/{replica} has a directory or disk and no address"))
        };
        let dirs = self.data_dir.into_iter().map(|(numbers, dir)| (numbers, None, dir));
        let disks = self.disk.into_iter().map(|(numbers, name, dir)| (numbers, Some(name), dir));
        for (numbers, name, dir) in dirs.chain(disks) {
            let server = servers.iter_mut().find(|(known, _)| *known == numbers).ok_or_else(|| unknown(numbers))?;
            server.1 = match name {
                None => server.1.clone().data_dir(dir),
                Some(name) => server.1.clone().disk(name, dir),
            };
        }
        for (numbers, name, disk) in self.object_disk {
            let server = servers.iter_mut().find(|(known, _)| *known == numbers).ok_or_else(|| unknown(numbers))?;
            server.1 = server.1.clone().object_disk(name, disk);
        }
        let members = servers.into_iter().map(|((shard, replica), server)| MemberSettings::new(shard, replica, server));
        Ok(members.fold(ClusterSettings::default(), ClusterSettings::member))
    }
}

impl EngineKind for ClickHouseCluster {
    fn name(&self) -> &'static str {
        "clickhouse-cluster"
    }

    fn about(&self) -> &'static str {
        "ClickHouse: shards and replicas as members of one backup, restored into as many servers or fewer"
    }

    fn source_options(&self, command: Command) -> Command {
        ClusterSource::augment_args(command)
    }

    fn target_options(&self, command: Command) -> Command {
        ClusterTarget::augment_args(command)
    }

    fn stream_options(&self, command: Command) -> Command {
        MembersArgs::augment_args(command)
    }

    fn stream(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        // Whoever captures asks the engine for its log, and hears that it has none.
        let members = MembersArgs::from_arg_matches(matches).map_err(misread)?;
        Ok(Box::new(Engine::new(members.settings()?)?))
    }

    fn source(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let args = ClusterSource::from_arg_matches(matches).map_err(misread)?;
        let mut settings = args.members.settings()?;
        for member in &mut settings.members {
            member.server = args.reading.apply(member.server.clone());
        }
        (settings.identity, settings.cluster) = (args.identity, args.cluster);
        Ok(Box::new(Engine::new(settings)?))
    }

    fn target(&self, into: &str, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let mut args = ClusterTarget::from_arg_matches(matches).map_err(misread)?;
        args.members.member.insert(0, ((1, 1), into.to_owned()));
        Ok(Box::new(Engine::new(args.members.settings()?)?.with_restore(args.way.settings()?)))
    }

    fn checker(&self) -> Result<Box<dyn BackupEngine>> {
        Ok(Box::new(Engine::new(ClusterSettings::default())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<MembersArgs, clap::Error> {
        let command = MembersArgs::augment_args(Command::new("backup"));
        MembersArgs::from_arg_matches(&command.try_get_matches_from(["backup"].iter().chain(args))?)
    }

    #[test]
    fn members_have_their_directories() {
        let args = [
            "--member",
            "1/1=http://a",
            "--member",
            "2/1=http://b=",
            "--data-dir",
            "2/1=/srv/b",
            "--disk",
            "1/1:cold=/srv/cold",
        ];
        let wanted = ClusterSettings::default()
            .member(MemberSettings::new(1, 1, ClickHouseSettings::default().url("http://a").disk("cold", "/srv/cold")))
            .member(MemberSettings::new(2, 1, ClickHouseSettings::default().url("http://b=").data_dir("/srv/b")));
        assert_eq!(parsed(&args).unwrap().settings().unwrap(), wanted);
        let stray = parsed(&["--member", "1/1=http://a", "--data-dir", "1/2=/srv"]).unwrap().settings().unwrap_err();
        assert!(stray.to_string().contains("1/2 has a directory or disk"), "{stray}");
        for (option, bad) in [
            ("--member", "http://a"),
            ("--member", "0/1=http://a"),
            ("--member", "1=http://a"),
            ("--data-dir", "/srv"),
            ("--data-dir", "1/1=srv"),
            ("--disk", "1/1:=/srv"),
            ("--disk", "1/1:cold=srv"),
            ("--object-disk", "s3=/nowhere/s3.json"),
            ("--object-disk", "1/1:=/nowhere/s3.json"),
            ("--object-disk", "1/1:s3=/nowhere/s3.json"),
        ] {
            assert!(parsed(&[option, bad]).is_err(), "{option} {bad}");
        }
    }
}
