package config

import (
	"context"
	"fmt"
	"os"
)

// Keys, nonces and shares are made with crypto/rand, which asks the kernel. So that
// none of them hangs on the kernel's generator alone, random bytes of the device are
// mixed into it: at init, at each unsealing and every hour. Mixing can't weaken it.
// The kernel hashes what anybody writes to its device into its pool and counts it as
// no entropy (random(4)), so that a device which gives chosen bytes changes nothing
// for the worse. The kernel takes from the pool at its next reseed, within a minute or
// so: what is made in the first minute after init was made without them.

// kernelPool is where the kernel takes bytes to mix.
const kernelPool = "/dev/urandom"

// stirred is how many bytes are mixed at a time, twice what the kernel keeps as a key.
const stirred = 64

// randomness is a device with a generator of its own.
type randomness interface {
	Random(ctx context.Context, b []byte) error
}

// Randomness is the device's own source of random bytes; nil without one.
func Randomness(d Device) func(ctx context.Context, b []byte) error {
	if source, ok := d.(randomness); ok {
		return source.Random
	}
	return nil
}

// StirRandomness mixes random bytes of the device into the kernel's generator. A
// device without one is left alone. An error is worth a line in the log and no more.
func StirRandomness(ctx context.Context, d Device) error {
	source, ok := d.(randomness)
	if !ok {
		return nil
	}
	return stir(ctx, source, kernelPool)
}

func stir(ctx context.Context, source randomness, pool string) error {
	b := make([]byte, stirred)
	defer clear(b)
	if err := source.Random(ctx, b); err != nil {
		return fmt.Errorf("mixing the device's random bytes: %w", err)
	}
	f, err := os.OpenFile(pool, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("mixing the device's random bytes: %w", err)
	}
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return fmt.Errorf("mixing the device's random bytes: %w", err)
	}
	return f.Close()
}
