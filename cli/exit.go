package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
)

// Exit codes of every command.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitRefused     = 3
	ExitNotFound    = 4
	ExitTimeout     = 5
	ExitInterrupted = 130
)

const exitCodesHelp = `Every command ends with one of these codes:

  0    it is done, or it was so already
  1    it failed: the message says why and what to do
  2    the command line is wrong: see --help
  3    the object was refused: its spec, or who asked, is not allowed to do that
  4    the object, node or topic does not exist
  5    it was not done in time; what was begun goes on
  130  interrupted (Ctrl-C)
`

// UsageError says that the command line is wrong.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// NotFoundError says that something a user named does not exist.
type NotFoundError struct{ Message string }

func (e *NotFoundError) Error() string { return e.Message }

// RefusedError says that a spec is not accepted.
type RefusedError struct{ Message string }

func (e *RefusedError) Error() string { return e.Message }

// ExitCode is the code that a command which ended with err exits with.
func ExitCode(err error) int {
	var usage *UsageError
	var notFound *NotFoundError
	var noMatch *meta.NoResourceMatchError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &usage):
		return ExitUsage
	case refused(err):
		return ExitRefused
	case errors.As(err, &notFound), errors.As(err, &noMatch), isNotFound(err), isUnknownTopic(err):
		return ExitNotFound
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return ExitTimeout
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	default:
		return ExitFailure
	}
}

func refused(err error) bool {
	if _, own := errors.AsType[*RefusedError](err); own {
		return true
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	s := status.Status()
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || strings.Contains(s.Message, "denied the request")
}

func isNotFound(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && apierrors.IsNotFound(err)
}

// isUnknownTopic knows Kafka's answer by its name in the protocol, which stands in every
// message about it.
func isUnknownTopic(err error) bool {
	return strings.Contains(err.Error(), "UNKNOWN_TOPIC_OR_PARTITION")
}

func isTimeout(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && (apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err))
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp}
}
