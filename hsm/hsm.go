// Package hsm is the PKCS#11 provider: it seals the vault's root key, signs the
// journal's checkpoints and opens what vendors encrypt to us, with keys that
// never leave a token.
//
// The vendor's module runs in a worker process, this same binary started again
// as `sigild hsm-worker`, spoken to over a socketpair. The daemon loads no
// foreign code; a module that crashes or hangs costs one request.
//
// It refuses: a token or key that is not the only match; a key whose attributes
// are weaker than the ones it makes itself; a blob that does not authenticate; a
// second try of a PIN that the token refused once; the token's last PIN try; and
// everything when built without cgo. It has no fallback in software.
//
// The PIN never enters the daemon: the worker alone reads its file. In the worker
// the bindings make one copy of the PIN, and of each plaintext, on the C heap
// that can't be wiped; the worker can't be dumped or traced, and that is the
// protection those copies have.
package hsm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"sync"

	"github.com/sigild/sigild/seal"
)

// Info describes the token.
type Info struct {
	Label, Serial, Manufacturer, Model, Firmware string
	// PINCountLow: the token reports wrong PINs since the last right one.
	PINCountLow bool
}

// Keys are the two keys that [Provider.Provision] makes.
type Keys struct {
	KEK        seal.KeyRef // AES-256, seals
	Checkpoint seal.KeyRef // P-256, signs checkpoints
}

// Provider is one token. It implements [seal.Provider], [seal.Sealer],
// [seal.Signer], [seal.Decrypter] and [seal.Roller]. Its methods are safe for concurrent use; each returns within
// Config.CallTimeout and by the deadline of its context. A call that gives up
// early (context) may still be carried out by the token.
type Provider struct {
	sup *supervisor
	id  string

	mu     sync.Mutex
	canary seal.KeyRef                      // KEK last used with success; guarded by mu
	public map[seal.KeyRef]*ecdsa.PublicKey // pinned at first sight; guarded by mu
	rsa    map[seal.KeyRef]*rsa.PublicKey   // likewise
}

var (
	_ seal.Provider  = (*Provider)(nil)
	_ seal.Sealer    = (*Provider)(nil)
	_ seal.Signer    = (*Provider)(nil)
	_ seal.Decrypter = (*Provider)(nil)
	_ seal.Roller    = (*Provider)(nil)
	_ seal.KEKMaker  = (*Provider)(nil)
	_ seal.Counting  = (*Provider)(nil)
)

// Open starts the worker, which logs in. While a wrong PIN is latched it starts
// nothing and answers [seal.ErrLatched]. Other errors: [seal.ErrAuth] (and the
// latch is written), [seal.ErrLocked], [ErrFinalTry], [seal.ErrNotFound] and
// [seal.ErrAmbiguous] for the token, [seal.ErrUnavailable] for a module that
// can't be loaded, [seal.ErrUnsupported] when built without cgo.
func Open(ctx context.Context, cfg Config) (*Provider, error) {
	return open(ctx, cfg, nil)
}

// open is Open; prepare sees the supervisor before it runs.
func open(ctx context.Context, cfg Config, prepare func(*supervisor)) (*Provider, error) {
	if !built {
		return nil, fmt.Errorf("opening the HSM: %w: built without cgo: no PKCS#11", seal.ErrUnsupported)
	}
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	sup := newSupervisor(cfg)
	if prepare != nil {
		prepare(sup)
	}
	p := &Provider{sup: sup, public: map[seal.KeyRef]*ecdsa.PublicKey{}, rsa: map[seal.KeyRef]*rsa.PublicKey{}}
	info, err := p.Info(ctx)
	if err != nil {
		sup.close()
		return nil, fmt.Errorf("opening the HSM: %w", err)
	}
	p.id = "pkcs11:" + info.Serial
	return p, nil
}

// ID is "pkcs11:" and the token's serial.
func (p *Provider) ID() string { return p.id }

// Close logs out by ending the worker. A call that is running gets a second to
// finish; later calls answer [seal.ErrUnavailable].
func (p *Provider) Close() error {
	p.sup.close()
	return nil
}

// Health makes the token encrypt and decrypt a canary under the KEK last used;
// before any was used it asks for a session and random bytes.
func (p *Provider) Health(ctx context.Context) error {
	p.mu.Lock()
	ref := p.canary
	p.mu.Unlock()
	key := []byte{}
	if ref != "" {
		r, err := parseRef(ref)
		if err != nil {
			return err
		}
		key = r.wire()
	}
	if err := p.sup.call(ctx, opHealth, noFields, key); err != nil {
		return fmt.Errorf("checking the HSM: %w", err)
	}
	return nil
}

// Calls implements [seal.Counting]: the requests that were made of the worker.
func (p *Provider) Calls() map[string]uint64 {
	out := map[string]uint64{}
	for o := range p.sup.calls {
		if n := p.sup.calls[o].Load(); n > 0 {
			out[op(o).String()] = n
		}
	}
	return out
}

// Info asks the token what it is.
func (p *Provider) Info(ctx context.Context) (Info, error) {
	var info Info
	err := p.sup.call(ctx, opInfo, func(f [][]byte) error {
		info = decodeInfo(f)
		return nil
	})
	return info, err
}

// Provision makes a KEK labelled "sigild-kek" and a checkpoint key labelled
// "sigild-checkpoint" with new random ids, checks them and tries them. They are
// in the token on return. How the KEK seals is found by trying: AES-GCM, AES key
// wrap, RSA-OAEP with an HMAC; [seal.ErrUnsupported] when the token can do none of
// these. Attributes that the token does not take are left out, and [Provider.Check]
// tells which. It is not repeated when a worker dies: then keys that nobody refers
// to may stay in the token.
func (p *Provider) Provision(ctx context.Context) (Keys, error) {
	var keys Keys
	err := p.sup.call(ctx, opProvision, func(f [][]byte) error {
		kek, err := readWire(f[0])
		checkpoint, err2 := readWire(f[1])
		keys = Keys{KEK: kek.text(), Checkpoint: checkpoint.text()}
		return errors.Join(err, err2)
	})
	if err != nil {
		return Keys{}, fmt.Errorf("making keys in the HSM: %w", err)
	}
	p.used(keys.KEK)
	return keys, nil
}

// MakeKEK implements [seal.KEKMaker]: a sealing key like Provision's, of a lineage of its
// own. Like Provision it is not repeated when a worker dies.
func (p *Provider) MakeKEK(ctx context.Context) (ref seal.KeyRef, err error) {
	err = p.sup.call(ctx, opMakeKEK, func(f [][]byte) error {
		r, err := readWire(f[0])
		ref = r.text()
		return err
	})
	if err != nil {
		return "", fmt.Errorf("making a sealing key in the HSM: %w", err)
	}
	return ref, nil
}

// CheckKEK is Check for one sealing key.
func (p *Provider) CheckKEK(ctx context.Context, ref seal.KeyRef) (lacks []string, err error) {
	return p.check(ctx, "KEK", kindKEK, ref)
}

// CheckCheckpoint is Check for the key that signs checkpoints.
func (p *Provider) CheckCheckpoint(ctx context.Context, ref seal.KeyRef) (lacks []string, err error) {
	return p.check(ctx, "checkpoint key", kindCheckpoint, ref)
}

// Check verifies that each key is there once and has the attributes we insist
// on: [seal.ErrNotFound], [seal.ErrAmbiguous], [seal.ErrPolicy]. The same is checked
// before a worker uses a key for the first time, and again every ten seconds of use
// (known.go). It returns the protections that the keys lack, such as
// "KEK: CKA_COPYABLE"; none is the rule.
func (p *Provider) Check(ctx context.Context, keys Keys) (lacks []string, err error) {
	lacks, err = p.CheckKEK(ctx, keys.KEK)
	if err != nil {
		return nil, err
	}
	more, err := p.CheckCheckpoint(ctx, keys.Checkpoint)
	return append(lacks, more...), err
}

func (p *Provider) check(ctx context.Context, name string, kind byte, ref seal.KeyRef) (lacks []string, err error) {
	r, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	err = p.sup.call(ctx, opCheckKey, func(f [][]byte) error {
		for _, lack := range protection(binary.BigEndian.Uint16(f[0])).names() {
			lacks = append(lacks, name+": "+lack)
		}
		return nil
	}, []byte{kind}, r.wire())
	if err != nil {
		return nil, fmt.Errorf("checking HSM key %s: %w", ref, err)
	}
	return lacks, nil
}

// BeginRoll implements [seal.Roller]. Like Provision it is not repeated when a
// worker dies; EndRoll removes what it left.
func (p *Provider) BeginRoll(ctx context.Context, ref seal.KeyRef) (next seal.KeyRef, err error) {
	r, err := parseRef(ref)
	if err != nil {
		return "", err
	}
	err = p.sup.call(ctx, opBeginRoll, func(f [][]byte) error {
		n, err := readWire(f[0])
		next = n.text()
		return err
	}, r.wire())
	if err != nil {
		return "", fmt.Errorf("making a successor to HSM key %s: %w", ref, err)
	}
	return next, nil
}

// EndRoll implements [seal.Roller].
func (p *Provider) EndRoll(ctx context.Context, keep seal.KeyRef) (destroyed int, err error) {
	r, err := parseRef(keep)
	if err != nil {
		return 0, err
	}
	err = p.sup.call(ctx, opEndRoll, func(f [][]byte) error {
		destroyed = int(binary.BigEndian.Uint32(f[0]))
		return nil
	}, r.wire())
	if err != nil {
		return 0, fmt.Errorf("ending the roll to HSM key %s: %w", keep, err)
	}
	return destroyed, nil
}

// The kinds of key in opCheckKey and opDescribe.
const (
	kindKEK        = 1
	kindCheckpoint = 2
	kindRSA        = 3
	kindMAC        = 4 // of opDescribe alone: the HMAC key beside a KEK
)

// Seal implements [seal.Sealer], in the way that ref says (wrap.go). plaintext has
// 1 to [seal.MaxSealed] bytes, aad at most 4096. With AES-256-GCM, the rule, the blob
// is a version byte (1), the 12-byte IV, the ciphertext and the 16-byte tag.
func (p *Provider) Seal(ctx context.Context, ref seal.KeyRef, plaintext, aad []byte) ([]byte, error) {
	r, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	if len(plaintext) < 1 || len(plaintext) > maxPlain || len(aad) > maxAAD {
		return nil, fmt.Errorf("sealing under HSM key %s: %d bytes with %d bytes of aad, want 1 to %d and at most %d", ref, len(plaintext), len(aad), maxPlain, maxAAD)
	}
	var blob []byte
	err = p.sup.call(ctx, opWrap, func(f [][]byte) error {
		if least, most := r.wrap.blobLen(len(plaintext)); len(f[0]) < least || len(f[0]) > most || f[0][0] != byte(r.wrap) {
			return fmt.Errorf("%w: the blob has the wrong form", seal.ErrUnavailable)
		}
		blob = append(blob, f[0]...)
		return nil
	}, r.wire(), plaintext, aad)
	if err != nil {
		return nil, fmt.Errorf("sealing under HSM key %s: %w", ref, err)
	}
	p.used(ref)
	return blob, nil
}

// Unseal implements [seal.Sealer].
func (p *Provider) Unseal(ctx context.Context, ref seal.KeyRef, blob, aad []byte, use func(plaintext []byte) error) error {
	r, err := parseRef(ref)
	if err != nil {
		return err
	}
	least, _ := r.wrap.blobLen(1)
	_, most := r.wrap.blobLen(maxPlain)
	if len(blob) < least || len(blob) > most || blob[0] != byte(r.wrap) || len(aad) > maxAAD {
		return fmt.Errorf("unsealing under HSM key %s: %w: no blob of ours has %d bytes", ref, seal.ErrTampered, len(blob))
	}
	var useErr error
	err = p.sup.call(ctx, opUnwrap, func(f [][]byte) error {
		if least, most := r.wrap.blobLen(len(f[0])); len(blob) < least || len(blob) > most {
			return fmt.Errorf("%w: the plaintext has the wrong length", seal.ErrUnavailable)
		}
		p.used(ref)
		useErr = use(f[0])
		return nil
	}, r.wire(), blob, aad)
	if err != nil {
		return fmt.Errorf("unsealing under HSM key %s: %w", ref, err)
	}
	return useErr
}

// PublicP256 implements [seal.Signer]. Only the first answer for a key is
// believed: another point later is [seal.ErrPolicy].
func (p *Provider) PublicP256(ctx context.Context, ref seal.KeyRef) (*ecdsa.PublicKey, error) {
	r, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	var pub *ecdsa.PublicKey
	err = p.sup.call(ctx, opPublicP256, func(f [][]byte) error {
		pub, err = p.pin(ref, f[0])
		return err
	}, r.wire())
	if err != nil {
		return nil, fmt.Errorf("reading public key %s from the HSM: %w", ref, err)
	}
	return pub, nil
}

// SignP256 implements [seal.Signer]. The signature is verified here, outside the
// worker, before it is returned.
func (p *Provider) SignP256(ctx context.Context, ref seal.KeyRef, digest [32]byte) ([]byte, error) {
	key, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	var sig []byte
	err = p.sup.call(ctx, opSignP256, func(f [][]byte) error {
		pub, err := p.pin(ref, f[1])
		if err != nil {
			return err
		}
		r, s := new(big.Int).SetBytes(f[0][:32]), new(big.Int).SetBytes(f[0][32:])
		if !ecdsa.Verify(pub, digest[:], r, s) {
			return fmt.Errorf("%w: the signature does not verify", seal.ErrUnavailable)
		}
		sig = append(sig, f[0]...)
		return nil
	}, key.wire(), digest[:])
	if err != nil {
		return nil, fmt.Errorf("signing with HSM key %s: %w", ref, err)
	}
	return sig, nil
}

// Random fills b with random bytes of the token. On an error b is zero.
func (p *Provider) Random(ctx context.Context, b []byte) error {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), maxRandom)
		err := p.sup.call(ctx, opRandom, func(f [][]byte) error {
			if len(f[0]) != n {
				return fmt.Errorf("%w: %d random bytes, want %d", seal.ErrUnavailable, len(f[0]), n)
			}
			copy(rest, f[0])
			return nil
		}, binary.BigEndian.AppendUint16(nil, uint16(n)))
		if err != nil {
			clear(b)
			return fmt.Errorf("asking the HSM for random bytes: %w", err)
		}
		rest = rest[n:]
	}
	return nil
}

// pin parses point and holds it against the one seen before.
func (p *Provider) pin(ref seal.KeyRef, point []byte) (*ecdsa.PublicKey, error) {
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("%w: the token's public key: %w", seal.ErrPolicy, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.public[ref]; ok && !old.Equal(pub) {
		return nil, fmt.Errorf("%w: the token's public key changed", seal.ErrPolicy)
	}
	p.public[ref] = pub
	return pub, nil
}

// used makes ref the key of the canary.
func (p *Provider) used(ref seal.KeyRef) {
	p.mu.Lock()
	p.canary = ref
	p.mu.Unlock()
}

func noFields([][]byte) error { return nil }

// Format prints the provider's id, whatever the verb.
func (p *Provider) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.id) }

// LogValue is the provider's id.
func (p *Provider) LogValue() slog.Value { return slog.StringValue(p.id) }

// MarshalJSON fails: a provider is not data.
func (p *Provider) MarshalJSON() ([]byte, error) {
	return nil, errors.New("refusing to encode an HSM provider")
}
