// Package logfilter decides which log records of the embedded API server and etcd a person should see: warnings and
// errors, minus the few that are printed on every healthy start and stop. It never touches Castellan's own records.
package logfilter

import (
	"bytes"
	"io"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// noise lists messages seen on every healthy start or stop, measured on Kubernetes 1.36.3 and etcd 3.6.8.
func noise() [][]byte {
	phrases := []string{
		// The etcd clients of a stopping server lose their connection, and those of a starting one dial before it is there.
		"createTransport failed to connect",
		"grpc: addrConn.createTransport",
		// The unix socket is the access control: only this process's user may enter its folder.
		"Running http and grpc server on single port",
		"serving insecure client requests",
		"stopping insecure grpc server due to error",
		"stopped insecure grpc server due to error",
		"serving client traffic insecurely",
		"simple token is not cryptographically signed",
		"failed to stop HTTP server",
		"setting up serving from embedded etcd failed",
		"failed to serve",
		// Old versions of the built-in APIs are not served.
		"because it has no resources",
		"The manifest file is empty, ignoring",
		// The built-in APIs have no OpenAPI document of their own behind the aggregator until it is first asked for.
		"OpenAPI AggregationController",
		// A refusal is an answer to its client, not an event of the server.
		"] rejected by webhook",
		// On a new directory some parts ask for the namespace before the server has made it, and ask again.
		`namespaces \"kube-system\" not found`,
		// There is no Service network here.
		"Unable to find suitable network address",
	}
	out := make([][]byte, len(phrases))
	for i, p := range phrases {
		out[i] = []byte(p)
	}
	return out
}

// Writer passes on the log records worth reading. Each Write must be one whole record.
type Writer struct {
	mu    sync.Mutex
	out   io.Writer
	noise [][]byte
	// Info lets klog's informational records through too.
	Info bool
}

// New filters records on their way to out.
func New(out io.Writer) *Writer { return &Writer{out: out, noise: noise()} }

// Write forwards one record or swallows it; swallowing is no error.
func (w *Writer) Write(record []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.Info && isInfo(record) {
		return len(record), nil
	}
	for _, n := range w.noise {
		if bytes.Contains(record, n) {
			return len(record), nil
		}
	}
	return w.out.Write(record)
}

// isInfo recognizes klog's header, "I1231 23:59:59.999999 ...".
func isInfo(record []byte) bool {
	return len(record) > 5 && record[0] == 'I' && record[1] >= '0' && record[1] <= '9' && record[5] == ' '
}

// Zap is a logger for etcd that writes warnings and errors through the filter.
func (w *Writer) Zap() *zap.Logger {
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.AddSync(w), zap.WarnLevel)).Named("etcd")
}
