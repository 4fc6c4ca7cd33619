package share

import (
	"mime"
	"path"
	"strings"
)

// mediaTypes are those of files that are shared often. The system's table, which knows
// the others, takes as long to read as a small file takes to share.
var mediaTypes = map[string]string{
	".7z": "application/x-7z-compressed", ".avi": "video/x-msvideo", ".bz2": "application/x-bzip2",
	".csv": "text/csv; charset=utf-8", ".deb": "application/vnd.debian.binary-package", ".epub": "application/epub+zip",
	".flac": "audio/flac", ".gif": "image/gif", ".gz": "application/gzip", ".htm": "text/html; charset=utf-8",
	".html": "text/html; charset=utf-8", ".iso": "application/vnd.efi.iso", ".jpeg": "image/jpeg", ".jpg": "image/jpeg",
	".json": "application/json", ".m4a": "audio/mp4", ".md": "text/markdown; charset=utf-8", ".mkv": "video/matroska",
	".mov": "video/quicktime", ".mp3": "audio/mpeg", ".mp4": "video/mp4", ".ogg": "audio/ogg", ".pdf": "application/pdf",
	".png": "image/png", ".svg": "image/svg+xml", ".tar": "application/x-tar", ".tgz": "application/gzip",
	".txt": "text/plain; charset=utf-8", ".wav": "audio/wav", ".webm": "video/webm", ".webp": "image/webp",
	".xz": "application/x-xz", ".zip": "application/zip", ".zst": "application/zstd",
}

// Media is the media type that the end of a file's name tells, or "".
func (n Name) Media() string { return mediaOf(n, KindFile) }

// mediaOf is the media type that a file's name tells, or "". A directory has none.
func mediaOf(n Name, k Kind) string {
	ext := path.Ext(string(n))
	if k == KindDir || ext == "" {
		return ""
	}
	if known, ok := mediaTypes[strings.ToLower(ext)]; ok {
		return known
	}
	return mime.TypeByExtension(ext)
}
