package kafka

import (
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
)

// RefusedError is Kafka's own answer that it will not, with its code and message; or, with code 0, ours.
type RefusedError struct {
	// Doing is what was asked for.
	Doing string
	// Code and Name of Kafka's error (org.apache.kafka.common.protocol.Errors).
	Code int16
	Name string
	// Message is Kafka's, or the general meaning of the code.
	Message string
	// Retriable is true when Kafka calls it so.
	Retriable bool
}

func (e *RefusedError) Error() string {
	if e.Code == 0 {
		return fmt.Sprintf("%s: refused: %s", e.Doing, e.Message)
	}
	return fmt.Sprintf("%s: Kafka answered %s (%d): %s", e.Doing, e.Name, e.Code, e.Message)
}

// refused is nil for code 0.
func refused(doing string, code int16, message *string) error {
	if code == 0 {
		return nil
	}
	r := &RefusedError{Doing: doing, Code: code, Name: "UNKNOWN"}
	if known := kerr.TypedErrorForCode(code); known != nil {
		r.Name, r.Message, r.Retriable = known.Message, known.Description, known.Retriable
	}
	if message != nil && *message != "" {
		r.Message = *message
	}
	return r
}

func hostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
