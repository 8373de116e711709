package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	probeImage  = "testkube.local/probe:1"
	loadedImage = "testkube.local/loaded:1"
	dataDir     = "/data"
	probePort   = 8080
	hookPort    = 8443
)

// TestMain is the program of the test's own pods too: this executable is static and is the whole of their image.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		fmt.Fprintln(os.Stderr, probe())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// probe answers what the tests want to know of the inside of a pod.
func probe() error {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) (string, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			text, err := f(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_, _ = io.WriteString(w, text)
		})
	}
	handle("/name", func(*http.Request) (string, error) { return os.Hostname() })
	handle("/get", func(r *http.Request) (string, error) { return get(r.Context(), http.DefaultClient, r.FormValue("url")) })
	handle("/write", func(r *http.Request) (string, error) {
		return "", os.WriteFile(filepath.Join(dataDir, "kept"), []byte(r.FormValue("text")), 0o600)
	})
	handle("/read", func(*http.Request) (string, error) {
		data, err := os.ReadFile(filepath.Join(dataDir, "kept"))
		return string(data), err
	})
	handle("/size", func(*http.Request) (string, error) {
		var s syscall.Statfs_t
		err := syscall.Statfs(dataDir, &s)
		return strconv.FormatInt(int64(s.Blocks)*s.Bsize>>20, 10), err
	})
	handle("/eat", func(r *http.Request) (string, error) {
		mebibytes, err := strconv.Atoi(r.FormValue("mebibytes"))
		eaten := make([]byte, mebibytes<<20)
		for i := range eaten {
			eaten[i] = 1
		}
		return strconv.Itoa(len(eaten)), err
	})
	mux.HandleFunc("/deny", deny)
	if _, err := os.Stat("/certs/tls.crt"); err == nil {
		go func() {
			s := &http.Server{Addr: ":" + strconv.Itoa(hookPort), Handler: mux, ReadHeaderTimeout: time.Second}
			fmt.Fprintln(os.Stderr, s.ListenAndServeTLS("/certs/tls.crt", "/certs/tls.key"))
		}()
	}
	s := &http.Server{Addr: ":" + strconv.Itoa(probePort), Handler: mux, ReadHeaderTimeout: time.Second}
	return s.ListenAndServe()
}

// deny is an admission webhook that likes nothing.
func deny(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: &metav1.Status{Message: "asked in a pod"}}
	review.Request = nil
	_ = json.NewEncoder(w).Encode(review) //nolint:errchkjson // whoever asked finds it missing
}

func get(ctx context.Context, client *http.Client, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}
