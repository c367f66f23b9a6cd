//! A program in the place of `iptables-BACKEND-restore` that can be stopped at a point, and made to fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;

use crate::Outcome;
use crate::scene::{Backend, Scene, eventually};

/// Where a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// It has begun, and has the whole text.
    Before,
    /// The real program has read half of the text.
    Within,
    /// The kernel has the change; the agent does not know it.
    After,
}

/// The program. Its folder holds what it is told and what it tells, as files.
pub(super) struct Gate(PathBuf);

impl Gate {
    /// Puts it before the real one, for agents that are started from now on.
    pub(super) fn put(scene: &mut Scene, backend: Backend) -> Result<Self, Failed> {
        let name = format!("iptables-{}-restore", backend.name());
        let folder = scene.lab.dir().join("gate");
        fs::create_dir(&folder)?;
        fs::write(folder.join(&name), script(&folder, &name))?;
        fs::set_permissions(folder.join(&name), fs::Permissions::from_mode(0o755))?;
        let path = std::env::var("PATH")?;
        scene.set_env("PATH", &format!("{}:{path}", folder.display()));
        Ok(Self(folder))
    }

    /// The next run for this table stops.
    pub(super) fn stop_next(&self, table: &str, point: Point) -> Outcome {
        for left in ["go", "held", "left"] {
            // Most often there is none.
            let _ = fs::remove_file(self.0.join(left));
        }
        let point = match point {
            Point::Before => "before",
            Point::Within => "within",
            Point::After => "after",
        };
        fs::write(self.0.join("draft"), format!("{table} {point}\n"))?;
        Ok(fs::rename(self.0.join("draft"), self.0.join("order"))?)
    }

    /// Waits until a run has stopped.
    pub(super) fn wait_stopped(&self) -> Outcome {
        self.wait_for("held")
    }

    /// Lets it go on, and waits until it has ended.
    pub(super) fn release(&self) -> Outcome {
        fs::write(self.0.join("go"), "")?;
        self.wait_for("left")
    }

    /// Runs fail in all the ways that leave no trace of a rule that would be to blame, two of three; or no more.
    pub(super) fn set_faulty(&self, is_faulty: bool) -> Outcome {
        let path = self.0.join("faulty");
        Ok(if is_faulty { fs::write(path, "") } else { fs::remove_file(path) }?)
    }

    /// How many runs were made to fail, or to be thought failed.
    pub(super) fn failed_runs(&self) -> usize {
        // Without the file there was none.
        fs::read_to_string(self.0.join("failed")).unwrap_or_default().lines().count()
    }

    fn wait_for(&self, name: &str) -> Outcome {
        let path = self.0.join(name);
        eventually(&format!("the gate says {name}"), || Ok(path.exists().then_some(())))
    }
}

fn script(folder: &Path, name: &str) -> String {
    let text = r#"#!/bin/sh
PATH=${PATH#*:}
cd GATE || exit 1
input=input.$$
cat >"$input"
table=$(sed -n 's/^[*]//p' "$input" | head -n 1)
point=none
if read -r wanted at 2>/dev/null <order && [ "$wanted" = "$table" ] && mv order "order.$$" 2>/dev/null; then
  point=$at
fi
stay() {
  : >held
  while [ ! -e go ]; do sleep 0.01; done
}
if [ $point = none ] && [ -e faulty ]; then
  echo >>"count-$table"
  run=$(($(wc -l <"count-$table") % 6))
  [ $run = 0 ] || [ $run = 3 ] || echo >>failed
  case $run in
  1) echo 'Another app is currently holding the xtables lock; still 1s' >&2; exit 4 ;;
  2) kill -9 $$ ;;
  4) NAME "$@" <"$input"; kill -9 $$ ;;
  5) NAME "$@" <"$input"; exit 1 ;;
  esac
fi
[ $point = before ] && stay
if [ $point = within ]; then
  half=$(($(wc -l <"$input") / 2))
  { head -n $half "$input"; stay; tail -n +$((half + 1)) "$input"; } | NAME "$@"
else
  NAME "$@" <"$input"
fi
code=$?
[ $point = after ] && stay
rm "$input"
[ $point = none ] || : >left
exit $code
"#;
    text.replace("GATE", &folder.display().to_string()).replace("NAME", name)
}
