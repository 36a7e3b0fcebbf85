//! Looking without running: mount, fsck, doctor, info.

use mille_tests::{Store, Who};

#[test]
fn root_fuse_an_image_is_mounted_and_unmounted() {
    let store = Store::with_busybox(Who::Root);
    let point = store.file("point");
    std::fs::create_dir(&point).unwrap();
    let at = point.to_str().unwrap();
    store.line(&format!("mount bb {at}")).ok();
    assert_eq!(std::fs::read_to_string(point.join("t/a")).unwrap(), "a\n");
    let refused = std::fs::write(point.join("t/a"), "x").unwrap_err();
    assert_eq!(
        refused.raw_os_error(),
        Some(nix::errno::Errno::EROFS as i32)
    );
    store.line(&format!("umount {at}")).ok();
    assert!(std::fs::read_dir(&point).unwrap().next().is_none());
}

#[test]
fn user_fuse_an_image_is_mounted_and_unmounted() {
    let store = Store::with_busybox(Who::Ordinary);
    let outcome = store.script(
        "mkdir mnt; $mille mount bb mnt && cat mnt/t/a mnt/etc/issue && touch mnt/x; $mille umount mnt; ls -A mnt",
    );
    assert_eq!(outcome.out(), "a\nBusybox\nmnt", "{}", outcome.err());
    assert_ne!(outcome.err(), "", "something was written into an image");
}

/// The kernel lists a mount by the path it has resolved; the mount whose name was put another way was not found.
#[test]
fn root_fuse_a_mount_is_found_however_its_directory_is_named() {
    found_however_named(Who::Root);
}

#[test]
fn user_fuse_a_mount_is_found_however_its_directory_is_named() {
    found_however_named(Who::Ordinary);
}

fn found_however_named(who: Who) {
    let store = Store::with_busybox(who);
    let script = "base=$PWD; mkdir -p mnt d; ln -s mnt link; ln -s $PWD/link chain; cd d; \
                  for at in ../mnt ../link ../chain ../d/../mnt/ \"$PWD/../link\"; do \
                  $mille mount bb $at > ../said && $mille umount $at > ../said && echo gone; grep -c \" $base/mnt \" /proc/self/mountinfo; done; \
                  cd ../mnt; $mille umount .";
    let outcome = store.script(script);
    assert_eq!(
        outcome.out(),
        "gone\n0\ngone\n0\ngone\n0\ngone\n0\ngone\n0",
        "{}",
        outcome.err()
    );
    assert!(
        outcome
            .err()
            .ends_with("nothing of mille's is mounted there\n")
    );
}

/// Nobody but the user can use the mount, so the kernel is not asked to check permissions: what only the container's root
/// may read is the user's to look at as well.
#[test]
fn user_fuse_what_only_root_may_read_is_open_to_the_user() {
    let store = Store::with_busybox(Who::Ordinary);
    let script = "$mille run --name work bb sh -c 'echo secret > /root/key; chmod 600 /root/key; chown 5:6 /root/key'; \
                  mkdir mnt; $mille mount work mnt && cat mnt/root/key && stat -c '%u %g %a' mnt/root/key; \
                  grep -c \"$PWD/mnt ro,nosuid,nodev\" /proc/self/mountinfo; $mille umount mnt";
    let outcome = store.script(script);
    assert_eq!(
        outcome.out(),
        "secret\n5 6 600\n1\nmnt",
        "{}",
        outcome.err()
    );
}

/// Whoever looks into an image keeps its layers: they went under the feet of the one who looked.
#[test]
fn root_fuse_an_image_is_not_removed_under_who_looks_into_it() {
    not_removed_under_who_looks_into_it(Who::Root);
}

#[test]
fn user_fuse_an_image_is_not_removed_under_who_looks_into_it() {
    not_removed_under_who_looks_into_it(Who::Ordinary);
}

fn not_removed_under_who_looks_into_it(who: Who) {
    let store = Store::with_busybox(who);
    let script = "mkdir mnt; id=$($mille images -q); $mille mount bb mnt; \
                  $mille rmi bb; $mille rmi -f $id; $mille rmi -f bb; cat mnt/t/a; \
                  $mille umount mnt; $mille rmi $id | sed 's/:.*//'; $mille images -aq";
    let outcome = store.script(script);
    assert_eq!(
        outcome.out(),
        "Untagged: bb:latest\na\nmnt\nDeleted\nDeleted",
        "{}",
        outcome.err()
    );
    outcome
        .says("unable to remove repository reference \"bb\" (must force) - the mount at ")
        .says("(cannot be forced) - image is being used by the mount at ");
}

#[test]
fn root_fuse_a_mount_that_was_taken_away_holds_nothing() {
    let store = Store::with_busybox(Who::Root);
    let script = "mkdir mnt; $mille create --name work bb true >id; $mille mount work mnt; $mille rm work; \
                  $mille rmi bb && echo removed; ls mnt/t/a; $mille umount mnt && $mille rmi -f bb | head -1";
    let outcome = store.script(script);
    assert_eq!(
        outcome.out(),
        "work\nmnt/t/a\nmnt\nUntagged: bb:latest",
        "{}",
        outcome.err()
    );
}

#[test]
fn root_fuse_a_container_is_mounted_with_its_changes() {
    let store = Store::with_busybox(Who::Root);
    store
        .mille([
            "run",
            "--name",
            "work",
            "bb",
            "sh",
            "-c",
            "echo new > /new; rm /t/a",
        ])
        .ok();
    let point = store.file("point");
    std::fs::create_dir(&point).unwrap();
    let at = point.to_str().unwrap();
    store.line(&format!("mount work {at}")).ok();
    assert_eq!(std::fs::read_to_string(point.join("new")).unwrap(), "new\n");
    assert!(!point.join("t/a").exists());
    store.line(&format!("umount {at}")).ok();
}

#[test]
fn root_fsck_finds_what_is_damaged() {
    let store = Store::with_busybox(Who::Root);
    store.line("fsck").code(0);
    let layer = std::fs::read_dir(store.root().join("layers"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(layer.join("tree/t/a"), "b\n").unwrap();
    let report = store.line("fsck").code(1);
    let digest = layer.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        format!("{}{}", report.out(), report.err()).contains(&digest),
        "{}",
        report.out()
    );
}

/// What no digest covers: everything in a layer's directory but the content of files.
#[test]
fn root_fsck_compares_the_directories_of_layers() {
    fsck_compares_the_directories_of_layers(Who::Root);
}

#[test]
fn user_fuse_fsck_compares_the_directories_of_layers() {
    fsck_compares_the_directories_of_layers(Who::Ordinary);
}

fn fsck_compares_the_directories_of_layers(who: Who) {
    let store = Store::with_busybox(who);
    let commit = "$mille run --name work bb sh -c 'rm /t/a; mkdir /new; ln -s a /new/l; : >/new/empty; \
                  echo x >/new/f; ln /new/f /new/g; mknod /new/p p; chown 7:8 /new/empty; chmod 4711 /new/f' && \
                  $mille commit work two >/dev/null && $mille fsck";
    let outcome = store.script(commit).code(0);
    assert_eq!(
        outcome.out(),
        "2 images, 2 layers: clean",
        "{}",
        outcome.err()
    );
    let root = store.root().to_str().unwrap().to_owned();
    for change in [
        "rm l",
        "rm empty",
        "rm g",
        "touch more",
        "rm p",
        "touch -d @5 f",
        "rm ../t/a",
    ] {
        // In a copy of the layer's directory, which takes its place for the while.
        let script = format!(
            "cd {root}/layers/*/tree/new/.. && cd .. && mv tree aside && cp -a aside tree && cd tree/new && {change} && \
             cd ../.. && ($mille fsck; echo $?; rm -rf tree; mv aside tree)"
        );
        let outcome = store.script(&script);
        assert!(
            outcome.out().ends_with("2 images, 2 layers: damaged\n1"),
            "{change}: {} {}",
            outcome.out(),
            outcome.err()
        );
        assert!(
            outcome.out().contains("in its directory, "),
            "{change}: {}",
            outcome.out()
        );
    }
    store.line("fsck").code(0);
}

/// A record that a crash damaged hid its container, which nothing could remove, and its name stayed taken.
#[test]
fn root_a_container_with_a_damaged_record_is_listed_and_removed() {
    a_container_with_a_damaged_record_is_listed_and_removed(Who::Root);
}

#[test]
fn user_fuse_a_container_with_a_damaged_record_is_listed_and_removed() {
    a_container_with_a_damaged_record_is_listed_and_removed(Who::Ordinary);
}

fn a_container_with_a_damaged_record_is_listed_and_removed(who: Who) {
    let store = Store::with_busybox(who);
    let root = store.root().to_str().unwrap().to_owned();
    for (damage, by) in [
        ("echo '{' >", "work"),
        ("rm", "work"),
        ("echo '{' >", "$id"),
        ("rm", "$id"),
    ] {
        let script = format!(
            "id=$($mille create --name work bb true); {damage} {root}/containers/$id/container.json; \
             $mille fsck | grep -c \"^damaged: container $id: its container.json .*rm -f\"; $mille rm -f {by} >/dev/null && \
             $mille fsck; ls {root}/containers; $mille create --name work bb true >/dev/null && $mille rm work"
        );
        let outcome = store.script(&script);
        let want = "1\n1 images, 1 layers: clean\nwork";
        assert_eq!(outcome.out(), want, "{damage} {by}: {}", outcome.err());
    }
    let running = format!(
        "id=$($mille run -d --name work bb sleep 1000); echo '{{' >{root}/containers/$id/container.json; \
         $mille rm -f work; $mille fsck; ls {root}/containers"
    );
    let outcome = store.script(&running);
    assert_eq!(
        outcome.out(),
        "work\n1 images, 1 layers: clean",
        "{}",
        outcome.err()
    );
}

#[test]
fn root_doctor_says_what_is_there() {
    let store = Store::new(Who::Root);
    let report = store.line("doctor").ok();
    for word in ["/dev/fuse", "user namespaces", "passthrough", "cgroup"] {
        assert!(report.contains(word), "{word}: {report}");
    }
}

#[test]
fn user_doctor_says_what_is_there() {
    let store = Store::new(Who::Ordinary);
    let report = store.line("doctor").ok();
    for word in ["/dev/fuse", "user namespaces", "subuid"] {
        assert!(report.contains(word), "{word}: {report}");
    }
}

/// It said that all was well where nothing could run.
#[test]
fn root_doctor_knows_a_machine_on_which_nothing_runs() {
    let store = Store::with_busybox(Who::Root);
    let elsewhere =
        store.script("unshare -m sh -c 'mount --bind /dev/null /dev/fuse; $mille doctor'");
    let report = elsewhere.code(1).out();
    assert!(
        report.contains("NO /dev/fuse        something else than the FUSE device"),
        "{report}"
    );
    assert!(!report.contains("passthrough"), "{report}");
    let powerless = "setpriv --bounding-set -sys_admin --inh-caps -sys_admin \"$mille\"";
    let report = store.script(&format!("{powerless} doctor")).code(1).out();
    assert!(
        report.contains("NO capabilities     root without CAP_SYS_ADMIN"),
        "{report}"
    );
    let refused = store
        .script(&format!("{powerless} run --rm bb true"))
        .code(125)
        .err();
    assert!(
        refused.contains("root has no CAP_SYS_ADMIN here"),
        "{refused}"
    );
    store.script(&format!("{powerless} ps")).ok();
}

/// Layers that are mounted get a merged index; one that is damaged, cut off or of other directories is made anew, and what
/// the container sees is the same in any case.
#[test]
fn root_fuse_a_merged_index_is_made_believed_only_when_right_and_made_anew() {
    merged_index(Who::Root);
}

#[test]
fn user_fuse_a_merged_index_is_made_believed_only_when_right_and_made_anew() {
    merged_index(Who::Ordinary);
}

fn merged_index(who: Who) {
    let store = Store::with_busybox(who);
    let script = r#"
        two() { $mille run --name work bb sh -c 'rm /t/a; echo two > /t/b; ln -s b /t/l; chmod 4711 /bin/busybox; mkfifo /t/p'
                $mille commit work two >/dev/null; $mille rm work >/dev/null; }
        look() { $mille run --rm two sh -c 'cd /; find bin t -exec stat -c "%n %F %a %u:%g %h %s %i %Y" {} \; | sort; cat t/b; readlink t/l'; }
        two
        index() { ls "$MILLE_ROOT"/indexes/* -t | head -1; }
        # Who still has it mapped keeps the old one.
        put() { cat > bad; cp bad new; mv -f new "$(index)"; }
        anew() { ! cmp -s bad "$(index)" && [ "$(stat -c %s good)" = "$(stat -c %s "$(index)")" ]; }
        look > first; cp "$(index)" good
        wc -l < first | { read lines; [ "$lines" -gt 50 ] && echo many; }
        cmp first <(look) && cmp good "$(index)" && echo kept
        head -c 1000 good | put; cmp first <(look) && anew && echo anew
        put < /dev/null; cmp first <(look) && anew && echo anew
        { head -c 2000 good; printf 'xxxx'; tail -c +2005 good; } | put
        $mille fsck | grep -c "^damaged: indexes/.*digest"; cmp first <(look) && anew && echo anew
        rm -r "$MILLE_ROOT/indexes"; cmp first <(look) && anew && echo anew
        $mille run --name other two true; $mille diff other; $mille rm other >/dev/null
        $mille rmi two >/dev/null; $mille fsck >/dev/null && echo sound
    "#;
    let outcome = store.script(script);
    assert_eq!(
        outcome.out(),
        "many\nkept\nanew\nanew\n1\nanew\nanew\nsound",
        "{}",
        outcome.err()
    );
}
