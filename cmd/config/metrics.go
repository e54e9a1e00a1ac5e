package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

func (c Config) checkMetrics() error {
	m := c.Metrics
	if m.Socket.Path != "" {
		if err := checkPath("metrics.socket.path", m.Socket.Path); err != nil {
			return err
		}
		for _, other := range []string{c.Sockets.App.Path, c.Sockets.Admin.Path} {
			if filepath.Clean(m.Socket.Path) == filepath.Clean(other) {
				return errors.New("metrics.socket.path is the path of another socket")
			}
		}
	}
	if _, err := m.Socket.FileMode(); err != nil {
		return fmt.Errorf("metrics.socket.mode: %w", err)
	}
	if m.Textfile == "" {
		return nil
	}
	if err := checkPath("metrics.textfile", m.Textfile); err != nil {
		return err
	}
	if !strings.HasSuffix(m.Textfile, ".prom") {
		return errors.New("metrics.textfile must end in .prom, or node_exporter does not read it")
	}
	return nil
}
