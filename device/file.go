// Package device is the user's side of a key: a file that holds the user's shares,
// and the part that a device takes in keygens, issues, rotations and signatures. It
// serves sigilctl device, and whoever builds a device of their own on it.
//
// It refuses to take part in what it can't decode, in what it was not asked for, and
// in a set of which it has no share. It never forgets a share: one that ended stays
// in the file and says so.
package device

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/mpc"
)

// The file is an age file (X25519) of one JSON object, written as a whole to a new
// file, which is synced and then takes the old one's name: at every moment one of the
// two is there, whole (docs/formats.md).

const fileVersion = 1

// maxFile bounds what is read: a share is about 16 KiB.
const maxFile = 16 << 20

// State of a share.
type State string

// Pending: the other side has not said that it counts. Live: it counts. Ended: another
// set took its place, or it never counted.
const (
	Pending State = "pending"
	Live    State = "live"
	Ended   State = "ended"
)

// Share is one of the user's shares.
type Share struct {
	Set     string    `json:"set"`
	Key     string    `json:"key"`
	Wallet  string    `json:"wallet"`
	Name    string    `json:"name"`
	Chain   string    `json:"chain"`
	State   State     `json:"state"`
	MadeAt  time.Time `json:"made_at"`
	Encoded []byte    `json:"share"`
}

// contents is the JSON object.
type contents struct {
	V int `json:"v"`
	// Seed is of the device's Ed25519 key.
	Seed []byte `json:"seed"`
	// Device is its id at the appliance; "" before it is registered.
	Device string `json:"device,omitempty"`
	// Appliance is the pin of the appliance's key, Address where its door is:
	// "unix:" and a path, or "tcp:" and host:port.
	Appliance string  `json:"appliance,omitempty"`
	Address   string  `json:"address,omitempty"`
	Shares    []Share `json:"shares,omitempty"`
}

// File is an open device file. It is locked against other processes until Close.
type File struct {
	path     string
	identity *age.X25519Identity
	lock     *os.File
	contents contents
}

// ReadIdentity reads an age identity file: comments, and one line "AGE-SECRET-KEY-1…".
func ReadIdentity(r io.Reader) (*age.X25519Identity, error) {
	ids, err := age.ParseIdentities(io.LimitReader(r, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("reading the identity: %w", err)
	}
	id, ok := ids[0].(*age.X25519Identity)
	if len(ids) != 1 || !ok {
		return nil, errors.New("reading the identity: want one of X25519 (age-keygen makes it)")
	}
	return id, nil
}

// Create makes a new device with a key of its own; the file must not exist.
func Create(path string, identity *age.X25519Identity) (*File, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("creating device file: %s exists", path)
	}
	f := &File{path: path, identity: identity, contents: contents{V: fileVersion, Seed: make([]byte, 32)}}
	rand.Read(f.contents.Seed) // never fails, see crypto/rand
	if err := f.takeLock(); err != nil {
		return nil, err
	}
	if err := f.save(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Open reads a device file.
func Open(path string, identity *age.X25519Identity) (*File, error) {
	f := &File{path: path, identity: identity}
	if err := f.takeLock(); err != nil {
		return nil, err
	}
	if err := f.load(); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening device file %s: %w", path, err)
	}
	return f, nil
}

// Close wipes what was read and lets other processes in.
func (f *File) Close() {
	clear(f.contents.Seed)
	for _, s := range f.contents.Shares {
		clear(s.Encoded)
	}
	f.contents = contents{}
	if f.lock != nil {
		f.lock.Close()
	}
}

// takeLock keeps a second process out, which would write over what the first one saved.
func (f *File) takeLock() (err error) {
	f.lock, err = os.OpenFile(f.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking device file: %w", err)
	}
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.lock.Close()
		return fmt.Errorf("locking device file: another process uses %s", f.path)
	}
	return nil
}

func (f *File) load() error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	plain, err := age.Decrypt(io.LimitReader(in, maxFile), f.identity)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(plain, maxFile))
	defer func() { clear(text) }()
	if err != nil {
		return err
	}
	f.contents, err = parse(text)
	return err
}

// parse is strict.
func parse(text []byte) (contents, error) {
	var c contents
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return contents{}, fmt.Errorf("reading its contents: %w", err)
	}
	switch {
	case d.More():
		return contents{}, errors.New("reading its contents: bytes follow them")
	case c.V != fileVersion:
		return contents{}, fmt.Errorf("reading its contents: version %d, want %d", c.V, fileVersion)
	case len(c.Seed) != 32:
		return contents{}, errors.New("reading its contents: no seed")
	}
	for _, s := range c.Shares {
		set, party, err := mpc.DescribeShare(s.Encoded)
		if err != nil {
			return contents{}, fmt.Errorf("reading its share of set %.80q: %w", s.Set, err)
		}
		if set.ID != s.Set || party != mpc.User || s.State != Pending && s.State != Live && s.State != Ended {
			return contents{}, fmt.Errorf("reading its share of set %.80q: it is another", s.Set)
		}
	}
	return c, nil
}

// save puts everything on disk before it returns.
func (f *File) save() (err error) {
	text, err := json.Marshal(f.contents)
	if err != nil {
		return fmt.Errorf("saving device file: %w", err)
	}
	defer clear(text)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, f.identity.Recipient())
	if err == nil {
		if _, err = w.Write(text); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("saving device file: %w", err)
	}
	next := f.path + ".new"
	if err := writeSynced(next, sealed.Bytes()); err != nil {
		return fmt.Errorf("saving device file: %w", err)
	}
	if err := os.Rename(next, f.path); err != nil {
		return fmt.Errorf("saving device file: %w", err)
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return fmt.Errorf("saving device file: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("saving device file: %w", err)
	}
	return nil
}

// writeSynced writes a whole file, over one that a crash left half written.
func writeSynced(path string, b []byte) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(b)
	return errors.Join(err, out.Sync(), out.Close())
}

// Identity is the device's key as link uses it.
func (f *File) Identity() (*link.Identity, error) {
	return link.LentIdentity(func(use func([]byte) error) error { return use(f.contents.Seed) })
}

// Register remembers what the appliance said. Durable on return.
func (f *File) Register(device, appliancePin, address string) error {
	f.contents.Device, f.contents.Appliance, f.contents.Address = device, appliancePin, address
	return f.save()
}

// Where is the device's id, the pin of its appliance and the address of that one's door.
func (f *File) Where() (device, appliance, address string) {
	return f.contents.Device, f.contents.Appliance, f.contents.Address
}

// Shares lists them without their bytes, in the order in which they were made.
func (f *File) Shares() []Share {
	out := slices.Clone(f.contents.Shares)
	for i := range out {
		out[i].Encoded = nil
	}
	return out
}

// add keeps a share before anybody hears that we have it.
func (f *File) add(s Share) error {
	f.contents.Shares = append(f.contents.Shares, s)
	return f.save()
}

// settle learns which sets count; what counted and does no more has ended. A pending
// share of a set that does not count stays pending for an hour: its appliance may be
// about to commit it.
func (f *File) settle(live []string, now time.Time) error {
	changed := false
	for i := range f.contents.Shares {
		s := &f.contents.Shares[i]
		state := s.State
		switch {
		case slices.Contains(live, s.Set):
			state = Live
		case s.State == Live, s.State == Pending && now.Sub(s.MadeAt) > time.Hour:
			state = Ended
		}
		changed = changed || state != s.State
		s.State = state
	}
	if !changed {
		return nil
	}
	return f.save()
}

// share finds what fits; nil for none.
func (f *File) share(fits func(Share) bool) *Share {
	for i := range f.contents.Shares {
		if fits(f.contents.Shares[i]) {
			return &f.contents.Shares[i]
		}
	}
	return nil
}
