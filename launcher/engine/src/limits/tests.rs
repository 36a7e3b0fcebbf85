use super::place::{PARENT, members};
use super::*;

fn id() -> ContainerId {
    ContainerId::parse(&"ab".repeat(32)).unwrap()
}

/// A tree of plain files in the shape of version 2, as far as ours is concerned.
fn fake_two(root: &Path) -> Tree {
    let own = root.join("user.slice");
    for directory in [root.to_path_buf(), own.clone()] {
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup.subtree_control"), "").unwrap();
        fs::write(directory.join("cgroup.procs"), "").unwrap();
    }
    Tree {
        version: Version::Two,
        controllers: ["cpu", "memory", "pids", "io", "cpuset"]
            .map(str::to_owned)
            .to_vec(),
        mount: root.to_path_buf(),
        own,
    }
}

fn fake_one(root: &Path, controller: &str) -> Tree {
    let own = root.join(controller);
    fs::create_dir_all(&own).unwrap();
    Tree {
        version: Version::One,
        controllers: vec![controller.to_owned()],
        mount: own.clone(),
        own,
    }
}

fn limits() -> Resources {
    Resources {
        memory: 100 << 20,
        memory_swap: 200 << 20,
        pids_limit: Some(7),
        ..Resources::default()
    }
}

#[test]
fn root_s_groups_of_version_two_are_below_the_tree_s_root_and_a_user_s_below_his_own() {
    let directory = tempfile::tempdir().unwrap();
    let trees = [fake_two(directory.path())];
    for (privileged, base) in [
        (true, directory.path().to_path_buf()),
        (false, directory.path().join("user.slice")),
    ] {
        let plan = plan(&trees, privileged, &id(), &limits()).unwrap();
        assert_eq!(plan.groups.len(), 1);
        assert_eq!(plan.groups[0].base, base);
        assert_eq!(plan.groups[0].controllers, ["memory", "pids"]);
    }
}

#[test]
fn version_two_hands_controllers_down_and_gets_its_texts() {
    let directory = tempfile::tempdir().unwrap();
    let trees = [fake_two(directory.path())];
    let plan = plan(&trees, true, &id(), &limits()).unwrap();
    let group = plan.groups[0].group(&id());
    fs::create_dir_all(&group).unwrap();
    fs::write(
        group.parent().unwrap().join("cgroup.subtree_control"),
        "pids\n",
    )
    .unwrap();
    // This kernel limits no swap: nobody asked for that by name.
    for file in ["memory.max", "pids.max"] {
        fs::write(group.join(file), "").unwrap();
    }
    apply(&plan, &id()).unwrap();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(
        read(directory.path().join("cgroup.subtree_control")),
        "+memory +pids"
    );
    assert_eq!(
        read(group.parent().unwrap().join("cgroup.subtree_control")),
        "+memory\n".trim()
    );
    assert_eq!(read(group.join("memory.max")), "104857600");
    assert_eq!(read(group.join("pids.max")), "7");
    assert_eq!(
        Groups::of(std::slice::from_ref(&group))
            .placement()
            .unwrap()
            .procs_files,
        [group.join("cgroup.procs")]
    );
}

#[test]
fn a_hybrid_machine_takes_each_controller_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut two = fake_two(&directory.path().join("unified"));
    two.controllers = vec!["pids".to_owned()];
    let trees = [fake_one(directory.path(), "memory"), two];
    let plan = plan(&trees, true, &id(), &limits()).unwrap();
    let files: Vec<_> = plan
        .settings
        .iter()
        .map(|(_, setting)| setting.files[0])
        .collect();
    assert_eq!(
        files,
        [
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "pids.max"
        ]
    );
    assert_eq!(plan.groups.len(), 2);
}

#[test]
fn what_was_asked_for_and_is_not_there_is_an_error() {
    let error = plan(&[], true, &id(), &limits()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "unable to apply cgroup configuration: memory.max cannot be set to 104857600: no control group has it here"
    );
    assert_eq!(error.run_exit_code(), 125);
    assert!(
        plan(&[], true, &id(), &Resources::default())
            .unwrap()
            .groups
            .is_empty()
    );
    let directory = tempfile::tempdir().unwrap();
    let trees = [fake_two(directory.path())];
    let forbidden = Resources {
        oom_kill_disable: Some(true),
        ..Resources::default()
    };
    assert!(plan(&trees, true, &id(), &forbidden).is_err());
}

#[test]
fn kills_for_memory_are_counted_in_both_interfaces() {
    assert_eq!(oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
    assert_eq!(
        oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        1
    );
    assert_eq!(
        oom_kills("oom_kill_disable 1\nunder_oom 0\noom_kill 0\n"),
        0
    );
}

/// A tree of version 2 of the machine's own, mounted aside: no controller is in it where they are in version 1, but groups,
/// moves and removal are the kernel's.
#[test]
fn root_groups_of_a_real_version_two_are_made_joined_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().join("two");
    fs::create_dir(&mount).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &mount, Some("cgroup2"), flags, None::<&str>).unwrap();
    let place = Place {
        version: Version::Two,
        base: mount.clone(),
        parents: vec![PARENT.to_owned()],
        controllers: Vec::new(),
    };
    // A name of its own: the tree is the machine's.
    let id = ContainerId::random().unwrap();
    make_group(&place, &id).unwrap();
    let groups = Groups::of(&[place.group(&id)]);
    let mut child = std::process::Command::new("sleep")
        .arg("100")
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    gather(&place.group(&id), pid).unwrap();
    assert!(members(&place.group(&id)).unwrap().contains(&pid));
    let found = Groups::find(&id, pid).directories;
    assert!(
        found.iter().any(|group| group.ends_with(id.as_str())),
        "{found:?}"
    );
    // What still runs there is killed.
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    groups.remove();
    assert!(!place.group(&id).exists());
    assert_eq!(reaper.join().unwrap().code(), None);
    drop(fs::remove_dir(mount.join(PARENT)));
    nix::mount::umount(&mount).unwrap();
}
