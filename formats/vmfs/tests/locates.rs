//! From a byte of the volume back to its owner.

mod made;

use adit_core::NodeId;
use adit_testkit::vmfs::{Addressing, Entry, Heartbeat};
use adit_testkit::{Memory, Vmfs as Maker, vmfs::Image};
use adit_vmfs::{ResourceKind, Structure, Target};
use made::open;

fn maker(maker: Maker) -> Image<Memory> {
    maker
        .file("web01/web01.vmx", b"displayName = \"web01\"\n")
        .file("web01/medium.log", vec![b'm'; 5000])
        .file("web01/deep/web01-flat.vmdk", vec![7u8; 5 << 20])
        .sparse_file("web01/far.vmdk", 200 << 30, &[(100 << 30, b"far away")])
        .symlink("link", "web01/web01.vmx")
        .heartbeat(Heartbeat::live(5, "10.0.0.7"))
        .in_memory()
}

fn volumes() -> Vec<Image<Memory>> {
    let makers = [Maker::three(), Maker::five(), Maker::six(), Maker::six().scattered()];
    makers.into_iter().map(maker).collect()
}

fn node(image: &Image<Memory>, path: &str) -> NodeId {
    NodeId(image.fd_address(path).0.into())
}

#[test]
fn every_byte_of_data_leads_back_to_its_file_and_offset() {
    let cases = [
        ("web01/web01.vmx", 3),
        ("web01/medium.log", 4999),
        ("web01/deep/web01-flat.vmdk", 0),
        ("web01/deep/web01-flat.vmdk", (3 << 20) + 17),
        ("web01/far.vmdk", (100 << 30) + 5),
        ("link", 2),
    ];
    for image in volumes() {
        let fs = open(&image).unwrap();
        for (path, offset) in cases {
            let at = image.data_at(path, offset).unwrap();
            let owner = fs.owner_at(at).unwrap();
            assert_eq!(owner.file(), Some((node(&image, path), offset)), "{path} {}", owner.what());
            assert_eq!(owner.allocated, Some(true));
        }
    }
}

#[test]
fn large_blocks_lead_back_to_the_offset_within_them() {
    let large = Entry::sparse("large", 2 << 30, &[(0, b"x")]).large(512 << 20..1 << 30);
    let image = Maker::six().size_bytes(8 << 30).unconverted().with(large).in_memory();
    let fs = open(&image).unwrap();
    let offset = (512 << 20) + (77 << 20) + 123;
    let owner = fs.owner_at(image.data_at("large", offset).unwrap()).unwrap();
    assert!(matches!(owner.structure, Structure::Block(Target::LargeBlock(_))), "{owner:?}");
    assert_eq!(owner.file(), Some((node(&image, "large"), offset)));
}

#[test]
fn metadata_is_named_and_is_no_files_data() {
    for image in volumes() {
        let fs = open(&image).unwrap();
        let structure = |at| fs.owner_at(at).unwrap().structure;
        assert_eq!(structure(0x20_0010), Structure::Superblock);
        assert_eq!(structure(0x10_0000), Structure::VolumeHeader);
        assert_eq!(fs.owner_at(0x10_0000).unwrap().file(), None);
        let size = fs.heartbeat_region().slot_size_bytes;
        assert_eq!(structure(0x30_0000 + 5 * size + 9), Structure::Heartbeat(5));
        let (fd, _) = image.fd_address("web01/medium.log");
        let owner = fs.owner_at(image.fd_at("web01/medium.log") + 8).unwrap();
        assert!(matches!(owner.structure, Structure::Descriptor(a) if a.raw() == fd));
        assert_eq!((owner.allocated, owner.file()), (Some(true), None));
        for kind in [ResourceKind::Descriptors, ResourceKind::FileBlocks, ResourceKind::SubBlocks] {
            let at = fs.cluster_volume_offset(kind, 1).unwrap();
            let metadata = fs.superblock().metadata_size;
            assert_eq!(structure(at + 1), Structure::ClusterLock(kind, 1));
            assert_eq!(structure(at + metadata + 1), Structure::ClusterMeta(kind, 1));
        }
        let header = fs.resource_run(ResourceKind::SubBlocks, 0, 1).unwrap().0;
        assert_eq!(structure(header), Structure::ResourceHeader(ResourceKind::SubBlocks));
    }
}

#[test]
fn journals_pointer_blocks_and_free_blocks_are_told_apart() {
    for image in volumes() {
        let fs = open(&image).unwrap();
        let slot = fs.heartbeats().unwrap().into_iter().find(|h| h.in_use()).unwrap();
        let journal = fs.owner_at(slot.journal_offset().unwrap() + 100).unwrap();
        assert_eq!((journal.journal_of, journal.file()), (Some(5), None), "{}", journal.what());
        let last = fs.resource(ResourceKind::FileBlocks).unwrap().header.items - 1;
        let owner = fs.owner_at(last * fs.superblock().block_size.get()).unwrap();
        assert_eq!((owner.allocated, owner.node), (Some(false), None), "{}", owner.what());
    }
}

#[test]
fn pointer_blocks_belong_to_their_file_without_an_offset() {
    for maker in [Maker::five(), Maker::six()] {
        let big = Entry::sparse("big", 4 << 30, &[(1 << 30, b"x")]);
        let image = maker.with(big.addressing(Addressing::PointerBlocks)).in_memory();
        let fs = open(&image).unwrap();
        let fd =
            fs.descriptor(adit_vmfs::FdAddress::of_node(node(&image, "big")).unwrap()).unwrap();
        let pointers: Vec<_> =
            adit_vmfs::Pointers::of(&fs, &fd).unwrap().map(|p| p.unwrap()).collect();
        let above = pointers.iter().find(|p| p.level == 1).unwrap();
        let owner = fs.owner_at(fs.pointer_block_offset(above.address).unwrap() + 64).unwrap();
        assert_eq!((owner.node, owner.file_offset), (Some(node(&image, "big")), None));
    }
}

#[test]
fn an_fd_leads_back_to_its_paths() {
    for image in volumes() {
        let fs = open(&image).unwrap();
        for path in ["web01", "web01/web01.vmx", "web01/deep/web01-flat.vmdk", "link"] {
            let paths = fs.paths_of(node(&image, path)).unwrap();
            assert_eq!(paths, [format!("/{path}").into_bytes()]);
        }
        assert_eq!(fs.paths_of(NodeId(4)).unwrap(), [b"/".to_vec()]);
        assert_eq!(fs.paths_of(NodeId(0x0080_0004)).unwrap(), [b"/.fdc.sf".to_vec()]);
    }
}

#[test]
fn past_the_end_there_is_no_owner_but_an_error() {
    let image = maker(Maker::five());
    assert!(open(&image).unwrap().owner_at(image.volume_bytes()).is_err());
}
