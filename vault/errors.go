package vault

import "errors"

// The errors a caller decides on, with errors.Is. The text around them says
// which record or file, never what is in it.
var (
	// ErrSealed: the root key is not in memory (yet, or any more).
	ErrSealed = errors.New("vault is sealed")
	// ErrNotFound: there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrExists: there is a vault already; nothing was touched.
	ErrExists = errors.New("vault exists already")
	// ErrMissing: there is no vault in the directory.
	ErrMissing = errors.New("no vault here")
	// ErrTampered: a record, keyslot, head or table is not what the vault wrote.
	ErrTampered = errors.New("vault was changed from outside")
	// ErrInUse: another process holds the vault.
	ErrInUse = errors.New("vault is in use by another process")
	// ErrModes: the directory or a file is open to others, or belongs to another user.
	ErrModes = errors.New("vault is accessible to others")
	// ErrStoreFull: the disk is full. Nothing of the update was kept; later
	// updates may succeed.
	ErrStoreFull = errors.New("no space left for the vault")
	// ErrUnwritable: a commit or its fsync failed and its outcome is unclear.
	// Every later update fails until the process starts anew.
	ErrUnwritable = errors.New("vault can't be written any more")
	// ErrPinMismatch: this is not the store that was pinned.
	ErrPinMismatch = errors.New("vault is not the pinned one")
	// ErrSchema: the file was made by another version, or its schema was changed.
	ErrSchema = errors.New("unknown vault schema")
	// ErrNoKeyslot: no keyslot group can be opened with the providers at hand.
	ErrNoKeyslot = errors.New("no keyslot for the providers at hand")
	// ErrRollback: this is an older copy of the store than the anchor or the pin has seen.
	ErrRollback = errors.New("vault is an older copy")
	// ErrCounterReplaced: the anchor's counter is not the one that the store counted with.
	ErrCounterReplaced = errors.New("the rollback anchor's counter was replaced")
	// ErrNoAnchor: the counter that the pin names can't be used.
	ErrNoAnchor = errors.New("the rollback anchor can't be used")
	// ErrRotating: the root key is being rotated; that has to end first.
	ErrRotating = errors.New("the root key is being rotated")
	// ErrKeyslotsMoved: keyslots changed meanwhile; nothing was done.
	ErrKeyslotsMoved = errors.New("keyslots changed meanwhile")
	// ErrLastKeyslot: without this group nothing would open the store.
	ErrLastKeyslot = errors.New("the last keyslot group can't be removed")
	// ErrCustodians: fewer custodians are here than are needed.
	ErrCustodians = errors.New("too few custodians")
	// ErrNoRoller: no device of the keyslots can replace its sealing key.
	ErrNoRoller = errors.New("no device here can replace its sealing key")
	// ErrTooLarge: a record is larger than [MaxRecord], or its id than [MaxID].
	ErrTooLarge = errors.New("record is too large")
)
