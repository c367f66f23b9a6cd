//! A disk that is full, with everything on it that an agent reads and writes.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use tortie_api::control::Area;
use tortie_tests::lab::Programs;

use super::{Probes, expect_as_fresh, kill, write_state};
use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB, allow_to};

/// A small disk in the datastore's place.
struct Disk(PathBuf);

impl Disk {
    fn mount(scene: &Scene) -> Result<Self, Failed> {
        let root = scene.datastore().clone();
        scene.run(NODE, &format!("mount -t tmpfs -o size=256k none {}", root.display()))?;
        Ok(Self(root))
    }

    /// Writes until there is no room for another byte, in the last piece of the log neither.
    fn fill(&self) -> Outcome {
        for name in ["ballast", "log"] {
            let mut file = File::options().create(true).append(true).open(self.0.join(name))?;
            for piece in [4096, 1] {
                loop {
                    match file.write(&vec![b'x'; piece]) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::StorageFull => break,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(())
    }

    fn free(&self) -> Outcome {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }

    /// Writes a file over another, as `cp` does, where there is no room: what is left is empty.
    fn overwrite(&self, name: &str, text: &str) -> Outcome {
        let mut file = File::create(self.0.join(name))?;
        self.fill()?;
        let error = file.write_all(text.as_bytes()).err().ok_or("there was room")?;
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        drop(file);
        assert_eq!(fs::metadata(self.0.join(name))?.len(), 0);
        Ok(())
    }
}

/// A program that starts the agent with its log on the disk.
fn log_to(scene: &Scene, folder: &Path) -> Result<Programs, Failed> {
    let programs = Programs::locate()?;
    let script = scene.lab.dir().join("agent-with-log");
    let text = format!("#!/bin/sh\nexec {} \"$@\" 2>>{}/log\n", programs.agent.display(), folder.display());
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    Ok(Programs { agent: script, ctl: programs.ctl })
}

pub(super) fn full(backend: Backend) -> Outcome {
    let mut scene = shop::empty(backend)?;
    let disk = Disk::mount(&scene)?;
    write_state(&scene, 0)?;
    scene.write("web.yaml", allow_to("web", "client"))?;
    scene.write("more.yaml", allow_to("web", "other").replace("web-in", "more"))?;
    // Every event makes a line of the log.
    scene.set_env("FELIX_LOGSEVERITYSCREEN", "Debug");
    scene.set_env("XTABLES_LOCKFILE", &format!("{}/xtables.lock", disk.0.display()));
    scene.set_programs(log_to(&scene, &disk.0)?);
    scene.start()?;
    let mut probes = Probes::start(&scene)?;
    disk.fill()?;
    // A policy that cannot be written is not half written.
    let draft = scene.lab.dir().join("wish.yaml");
    fs::write(&draft, allow_to("vault", "other").replace("vault-in", "wish"))?;
    let datastore = format!("local:{}", disk.0.display());
    let wish = draft.display().to_string();
    let applied = scene.lab.ctl(NODE, &["--datastore", &datastore, "apply", "-f", &wish])?;
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(!applied.status.success() && said.contains("No space left"), "{said}");
    scene.settle()?;
    // One that was lost in writing stays in force.
    disk.overwrite("guard.yaml", &allow_to("vault", "other"))?;
    eventually("the empty file is named", || {
        Ok(scene.problems(Area::Datastore)?.iter().any(|p| p.contains("guard.yaml")).then_some(()))
    })?;
    probes.go_on()?;
    // What needs no room goes on.
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, true)])?;
    scene.remove("more.yaml")?;
    scene.settle()?;
    disk.fill()?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false), (CLIENT, VAULT, true)])?;
    // Room again.
    disk.free()?;
    write_state(&scene, 1)?;
    scene.settle()?;
    scene.expect_problem(Area::Datastore, &[])?;
    // And an agent that begins on a full disk.
    write_state(&scene, 2)?;
    disk.fill()?;
    kill(&mut scene)?;
    scene.start_on(NODE)?;
    scene.settle()?;
    probes.end()?;
    scene.unset_env("XTABLES_LOCKFILE");
    let outcome = expect_as_fresh(&scene, backend);
    scene.lab.stop_agent(NODE)?;
    scene.run(NODE, &format!("umount {}", disk.0.display()))?;
    outcome
}

/// The socket's disk has no room for a file: nothing can be asked, and policy is enforced all the same.
pub(super) fn no_room_for_the_socket(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    let room = scene.lab.dir().join("room");
    fs::create_dir(&room)?;
    // For itself and one file, and that is there.
    scene.run(NODE, &format!("mount -t tmpfs -o nr_inodes=2 none {}", room.display()))?;
    fs::write(room.join("ballast"), "")?;
    let programs = Programs::locate()?;
    let script = scene.lab.dir().join("agent-elsewhere");
    let (from, to) = (scene.lab.dir().join(format!("{NODE}.sock")), room.join("agent.sock"));
    let text = format!(
        "#!/bin/sh\nfor word; do\n  shift\n  [ \"$word\" = {} ] && word={}\n  set -- \"$@\" \"$word\"\ndone\nexec {} \"$@\"\n",
        from.display(),
        to.display(),
        programs.agent.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    scene.set_programs(Programs { agent: script, ctl: programs.ctl });
    scene.start_on(NODE)?;
    scene.expect_soon(&SHOP)?;
    scene.write("web.yaml", allow_to("web", "other"))?;
    scene.expect_soon(&[(CLIENT, WEB, false), (OTHER, WEB, true)])?;
    assert!(!to.exists());
    fs::remove_file(room.join("ballast"))?;
    eventually("the socket", || Ok(to.exists().then_some(())))?;
    scene.lab.stop_agent(NODE)?;
    scene.run(NODE, &format!("umount {}", room.display()))?;
    Ok(())
}
