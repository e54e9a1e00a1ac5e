package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
)

// Where the two processes with the network look for their configuration.
const (
	ReceivePath = "/etc/sigild/receive.yaml"
	DeliverPath = "/etc/sigild/deliver.yaml"
)

// Receive configures `sigild receive`; packaging/receive.yaml is the example.
type Receive struct {
	// Daemon is the applications' socket.
	Daemon string `yaml:"daemon"`
	// Listen is an address and port.
	Listen string `yaml:"listen"`
	// Certificate and Key are PEM files; both "" serve plain HTTP to a proxy.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// ReadReceive reads and checks the file.
func ReadReceive(path string) (Receive, error) {
	r := Receive{Daemon: Default().Sockets.App.Path, Listen: "[::]:8443"}
	if err := loadOne(path, &r); err != nil {
		return r, err
	}
	if err := checkPath("daemon", r.Daemon); err != nil {
		return r, fmt.Errorf("reading config %s: %w", path, err)
	}
	return r, nil
}

// LoadReceive reads the file, and the certificate that it names; nil for none.
func LoadReceive(path string) (Receive, *tls.Certificate, error) {
	r, err := ReadReceive(path)
	if err != nil || r.Certificate == "" && r.Key == "" {
		return r, nil, err
	}
	c, err := tls.LoadX509KeyPair(r.Certificate, r.Key)
	if err != nil {
		return r, nil, fmt.Errorf("reading the certificate: %w", err)
	}
	return r, &c, nil
}

// Deliver configures `sigild deliver`; packaging/deliver.yaml is the example.
type Deliver struct {
	// Daemon is the applications' socket.
	Daemon string `yaml:"daemon"`
	// Roots is a PEM file with certificates that vouch for endpoints besides the
	// system's; "" for none.
	Roots string `yaml:"roots"`
	// PublicOnly refuses endpoints at private addresses and on this host.
	PublicOnly bool `yaml:"public_only"`
}

// LoadDeliver reads and checks the file, and the certificates that it names.
func LoadDeliver(path string) (Deliver, *x509.CertPool, error) {
	d := Deliver{Daemon: Default().Sockets.App.Path}
	if err := loadOne(path, &d); err != nil {
		return d, nil, err
	}
	if err := checkPath("daemon", d.Daemon); err != nil {
		return d, nil, fmt.Errorf("reading config %s: %w", path, err)
	}
	if d.Roots == "" {
		return d, nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any
	}
	pem, err := os.ReadFile(d.Roots)
	if err != nil {
		return d, nil, fmt.Errorf("reading the roots: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return d, nil, fmt.Errorf("reading the roots: %s holds no certificate", d.Roots)
	}
	return d, pool, nil
}

// loadOne reads a small file of our own, strictly.
func loadOne(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening config: %w", err)
	}
	defer f.Close()
	if err := checkOwner(f); err != nil {
		return fmt.Errorf("reading config %s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return fmt.Errorf("reading config: %w", err)
	}
	if err := decodeOne(b, into); err != nil {
		return fmt.Errorf("reading config %s: %w", path, err)
	}
	return nil
}
