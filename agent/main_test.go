package agent

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"os/user"
	"syscall"
	"testing"
)

// TestMain lets the test binary be the program that an agent runs: with the variable set it
// serves a unix socket in its working directory until it is told to end.
func TestMain(m *testing.M) {
	if os.Getenv("AGENT_TEST_PROGRAM") != "" {
		os.Exit(serve())
	}
	os.Exit(m.Run())
}

func serve() int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	_ = os.Remove("p.sock")
	listener, err := net.Listen("unix", "p.sock")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/report", func(w http.ResponseWriter, _ *http.Request) {
		live, _ := os.ReadFile("live.txt")
		secret, _ := os.ReadFile("tls/key")
		_ = json.NewEncoder(w).Encode(map[string]any{"live": string(live), "secret": string(secret), "pid": os.Getpid()})
	})
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	go func() { _ = http.Serve(listener, mux) }()
	fmt.Println("serving")
	<-term
	return 0
}

func currentUser(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}
