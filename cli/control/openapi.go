package control

import (
	_ "embed"
	"net/http"
)

// openAPIFile is the description of the API. Its paths are written by hand; its schemas follow
// from the types of this package: go test ./cli/control -run OpenAPI -update.
//
//go:embed openapi.json
var openAPIFile []byte

// openAPI answers GET /openapi.json.
func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(openAPIFile)
}
