//! The id of the container that we run in, from what the kernel tells of this process. Pure: whoever starts us reads the files.
//!
//! With cgroup v1, and v2 without a namespace, `/proc/self/cgroup` names it; in a namespace of v2 that file says only `/`, and
//! the id stands in `/proc/self/mountinfo`, in the paths of the files that the runtime mounts into the container.

/// Of Docker, containerd, CRI-O and Podman: SHA-256 in hexadecimal.
const ID_LENGTH: usize = 64;
/// Nobody's table of mounts is longer; the rest is not read.
const MOST_LINES: usize = 4_096;
/// Folders of runtimes that hold a folder for each container; there the id stands for the container, elsewhere, as in
/// the folder of a pod's sandbox or of an image's layer, for something else.
const FOLDERS: &[&str] = &["/containers/", "/overlay-containers/", "/io.containerd.runtime.v2.task/"];
/// What the runtime itself puts into a container.
const MOUNTED: &[&str] = &["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"];

/// The container's id, from the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`; `None` outside a container.
#[must_use]
pub fn container_id(cgroup: &str, mountinfo: &str) -> Option<String> {
    let of_groups = cgroup.lines().take(MOST_LINES).filter_map(|line| line.splitn(3, ':').nth(2));
    let mut of_groups = of_groups.filter_map(of_cgroup);
    let of_mounts = || mountinfo.lines().take(MOST_LINES).find_map(of_mount);
    of_groups.next().or_else(of_mounts).map(str::to_owned)
}

/// The last part of a group's path: `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`, `libpod-<id>.scope/container`,
/// `kubepods-burstable-pod<uid>.slice:cri-containerd:<id>`.
fn of_cgroup(path: &str) -> Option<&str> {
    let parts = path.trim_end().rsplit('/').filter(|part| !part.is_empty());
    // Podman puts the processes of a container into a group below its own
    let mut parts = parts.skip_while(|part| matches!(*part, "container" | "init" | "init.scope"));
    let part = parts.next()?;
    let name = part.strip_suffix(".scope").unwrap_or(part);
    name.rsplit(['-', ':']).next().filter(|name| is_id(name))
}

/// The fourth field of a mount is the path that was mounted, the fifth where it is.
fn of_mount(line: &str) -> Option<&str> {
    let mut fields = line.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    if !MOUNTED.contains(&place) {
        return None;
    }
    let folders = FOLDERS.iter().filter_map(|folder| root.split_once(folder));
    let mut ids = folders.flat_map(|(_, behind)| behind.split('/')).filter(|part| is_id(part));
    ids.next()
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "cde7c2bab394630a42d73dc610b9c57415dced996106665d427f6d0566594411";
    const OTHER: &str = "0b5d1c2f7a9e4d3c8b6a5f4e3d2c1b0a9f8e7d6c5b4a39281706f5e4d3c2b1a0";

    #[test]
    fn the_runtimes_name_the_container_in_its_cgroup() {
        let lines = [
            // v1: Docker, with and without systemd; Kubernetes with containerd, CRI-O, and systemd slices
            "11:devices:/docker/<id>",
            "1:name=systemd:/system.slice/docker-<id>.scope",
            "4:memory:/kubepods/burstable/pod9b2e4c1a-6f0d-4c3b-9a57-1f2e3d4c5b6a/<id>",
            "4:memory:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod9b2e4c1a_6f0d.slice/cri-containerd-<id>.scope",
            "4:memory:/kubepods.slice/kubepods-pod9b2e4c1a_6f0d.slice/crio-<id>.scope",
            "4:memory:/system.slice/containerd.service/kubepods-besteffort-pod9b2e.slice:cri-containerd:<id>",
            "9:cpu:/machine.slice/libpod-<id>.scope",
            // v2, seen from outside its namespace
            "0::/system.slice/docker-<id>.scope",
            "0::/machine.slice/libpod-<id>.scope/container",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<id>.scope/container",
            "0::/kubepods.slice/kubepods-pod9b2e.slice/cri-containerd-<id>.scope\r",
        ];
        for line in lines {
            let cgroup = format!("12:freezer:/\n{}\n0::/\n", line.replace("<id>", ID));
            assert_eq!(container_id(&cgroup, "").as_deref(), Some(ID), "{line}");
        }
    }

    #[test]
    fn in_a_namespace_the_mounts_name_it() {
        let lines = [
            // Docker; containerd's CRI; Podman, as root and not; CRI-O
            "640 622 254:1 /var/lib/docker/containers/<id>/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw",
            "640 622 254:1 /home/me/.local/share/docker/containers/<id>/hosts /etc/hosts rw - ext4 /dev/vda1 rw",
            "712 699 0:25 /containers/storage/overlay-containers/<id>/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw",
            "712 699 0:25 /containers/overlay-containers/<id>/userdata/.containerenv /run/.containerenv rw - tmpfs tmpfs rw",
            "712 699 0:25 /run/containerd/io.containerd.runtime.v2.task/k8s.io/<id>/hosts /etc/hosts rw - tmpfs tmpfs rw",
        ];
        for line in lines {
            let layer = format!("1 2 0:9 / / rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/{OTHER}/diff");
            let mountinfo = format!("{layer}\n{}\n", line.replace("<id>", ID));
            assert_eq!(container_id("0::/\n", &mountinfo).as_deref(), Some(ID), "{line}");
        }
    }

    #[test]
    fn outside_a_container_there_is_none() {
        let sandbox = format!(
            "1 2 0:9 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{OTHER}/hostname /etc/hostname rw"
        );
        let volume = format!("1 2 0:9 /var/lib/docker/volumes/{OTHER}/_data /data rw - ext4 /dev/vda1 rw");
        for (cgroup, mountinfo) in [
            ("", ""),
            ("0::/\n", "22 27 0:21 / /proc rw,relatime - proc proc rw\n"),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", ""),
            ("4:memory:/process_api/801cc4924703dde346dfbd2967efcd63\n", ""),
            ("no colons at all", "too few fields"),
            // the pod's sandbox and a volume are no container
            ("0::/", &sandbox),
            ("0::/", &volume),
        ] {
            assert_eq!(container_id(cgroup, mountinfo), None, "{cgroup} {mountinfo}");
        }
        let capitals = format!("0::/docker/{}", ID.to_uppercase());
        assert_eq!(container_id(&capitals, ""), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_tell_anything_but_an_id(cgroup in "[a-f0-9:/.\n-]{0,200}", mountinfo in "(\\PC|\n){0,200}") {
            if let Some(id) = container_id(&cgroup, &mountinfo) {
                prop_assert!(is_id(&id));
            }
        }
    }
}
