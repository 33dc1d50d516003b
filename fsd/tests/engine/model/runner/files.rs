//! Operations on what is in an inode: bytes, attributes, extended attributes.

use super::{
    super::{ops::Op, target::Target, tree::Tree, world::Want},
    Ran, Runner,
};

impl Runner {
    /// Operations on what is in an inode.
    pub(super) fn file_op<T: Target>(&mut self, target: &mut T, s: usize, op: &Op) -> Ran {
        let wide = |n: &u32| u64::from(*n);
        match op {
            Op::Write(pick, offset, len, fill) => {
                let ino = self.node(target, s, *pick, Want::File)?;
                let data = pattern(*len as usize, *fill);
                self.world.live_mut(s).hot = Some(ino);
                self.change(
                    target,
                    s,
                    "write",
                    |tree| tree.write(ino, wide(offset), &data),
                    |target| target.write(s, ino, wide(offset), &data),
                )
            }
            Op::Allocate(pick, offset, len, how) => {
                let ino = self.node(target, s, *pick, Want::File)?;
                let (offset, len) = (wide(offset), wide(len).max(1));
                self.change(
                    target,
                    s,
                    "allocate",
                    |tree| tree.allocate(ino, offset, len, *how),
                    |target| target.allocate(s, ino, offset, len, *how),
                )
            }
            Op::Copy(pick, offset, other, at, len) => {
                let from = self.node(target, s, *pick, Want::File)?;
                let to = self.node(target, s, *other, Want::File)?;
                let model = |tree: &mut Tree| {
                    let data = tree.read(from, wide(offset), *len as usize)?;
                    tree.write(to, wide(at), &data)?;
                    Ok(data.len() as u64)
                };
                self.change(target, s, "copy", model, |target| {
                    target.copy(s, (from, wide(offset)), (to, wide(at)), wide(len))
                })
            }
            Op::SetAttrs(pick, set) => {
                let want = if set.size.is_some() { Want::File } else { Want::Any };
                let ino = self.node(target, s, *pick, want)?;
                self.change(
                    target,
                    s,
                    "setattr",
                    |tree| tree.set_attrs(ino, *set),
                    |target| target.set_attrs(s, ino, *set),
                )
            }
            Op::SetXattr(pick, name, len, how) => {
                let ino = self.node(target, s, *pick, Want::Any)?;
                let (name, value) = (xattr_name(*name), pattern((*len).into(), *name));
                self.change(
                    target,
                    s,
                    "setxattr",
                    |tree| tree.set_xattr(ino, &name, &value, *how),
                    |target| target.set_xattr(s, ino, &name, &value, *how),
                )?;
                let xattrs = &self.world.live(s).tree.nodes[&ino].xattrs;
                let want = xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                self.same(target.xattrs(s, ino), Ok(want), "listxattr")
            }
            Op::RemoveXattr(pick, name) => {
                let ino = self.node(target, s, *pick, Want::Attributed)?;
                let there = self.world.live(s).tree.nodes[&ino].xattrs.keys().next().filter(|_| *name > 0);
                let name = there.cloned().unwrap_or_else(|| xattr_name(*name));
                self.change(
                    target,
                    s,
                    "removexattr",
                    |tree| tree.remove_xattr(ino, &name),
                    |target| target.remove_xattr(s, ino, &name),
                )
            }
            _ => unreachable!("another group"),
        }
    }
}

/// Bytes that tell where they belong.
fn pattern(len: usize, fill: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ ((i >> 8) as u8) ^ fill).collect()
}

fn xattr_name(n: u8) -> Vec<u8> {
    format!("user.attribute{n}").into_bytes()
}
