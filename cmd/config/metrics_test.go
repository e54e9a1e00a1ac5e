package config

import (
	"strings"
	"testing"
)

func TestMetricsAreOffUnlessAsked(t *testing.T) {
	c, err := Parse([]byte(small))
	if err != nil || c.Metrics.Socket.Path != "" || c.Metrics.Textfile != "" {
		t.Errorf("%+v, %v", c.Metrics, err)
	}
	for _, row := range []struct{ what, text, want string }{
		{"a relative socket", "metrics: {socket: {path: m.sock}}", "metrics.socket.path must be an absolute path"},
		{"a taken socket", "metrics: {socket: {path: /run/sigild/admin.sock}}", "metrics.socket.path is the path of another socket"},
		{"a mode", "metrics: {socket: {path: /m, mode: \"0777\"}}", "metrics.socket.mode"},
		{"a relative file", "metrics: {textfile: sigild.prom}", "metrics.textfile must be an absolute path"},
		{"a file nobody reads", "metrics: {textfile: /sigild.txt}", "metrics.textfile must end in .prom"},
		{"a TCP port", "metrics: {listen: \":9090\"}", "field listen not found"},
	} {
		if _, err := Parse([]byte(small + row.text + "\n")); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.what, err, row.want)
		}
	}
}
