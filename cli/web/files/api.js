// The control API, as cli/control describes it in /api/v1/openapi.json.

const root = '/api/v1/'

// APIError is what the peer answers when it can't, or will not.
export class APIError extends Error {
  constructor(line) {
    super(line.message ?? 'the peer does not answer as expected')
    Object.assign(this, { reason: line.reason, hint: line.hint, candidates: line.candidates })
  }
}

async function ask(path, options) {
  let answer
  try {
    answer = await fetch(root + path, { ...options, credentials: 'same-origin', redirect: 'error' })
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new APIError({ message: 'The peer does not answer: it may have stopped.' })
  }
  if (answer.status === 401) ended()
  if (!answer.ok) throw new APIError(await answer.json().catch(() => ({})))
  return answer
}

let ended = () => {}
// onEnd is called when the session is not known any more.
export function onEnd(f) { ended = f }

// lines yields the lines of an answer as they come. An error line is thrown.
async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) break
      const parts = (rest + value).split('\n')
      rest = parts.pop()
      for (const part of parts) {
        if (!part) continue
        const line = JSON.parse(part)
        if (line.event === 'error') throw new APIError(line)
        yield line
      }
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

// query makes the parameters of a request; what is undefined is left out.
const query = values => new URLSearchParams(Object.entries(values).filter(([, v]) => v !== undefined)).toString()

export async function* list(path, values = {}, signal) {
  yield* lines(await ask(path + '?' + query(values), { signal }))
}

// all is the list at once, of max lines at most.
export async function all(path, values = {}, max = 10000) {
  const found = []
  for await (const line of list(path, values)) {
    found.push(line)
    if (found.length >= max) break
  }
  return found
}

export async function one(path, values = {}) {
  return (await ask(path + '?' + query(values))).json()
}

// change sends a request that changes something; on gets each line, and the last is
// returned.
export async function change(method, path, body = {}, on = () => {}) {
  let last
  const answer = await ask(path, { method, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
  for await (const line of lines(answer)) on(last = line)
  return last
}

export const post = (path, body, on) => change('POST', path, body, on)
export const remove = (path, body) => change('DELETE', path, body)

// upload sends a file; on gets the bytes that were sent. fetch can't tell them.
export function upload(file, values, on, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('POST', root + 'uploads?' + query(values))
    request.setRequestHeader('Content-Type', 'application/octet-stream')
    request.upload.onprogress = event => on(event.loaded)
    request.onerror = () => reject(new APIError({ message: 'The peer does not take ' + file.name + '.', hint: 'Is it a file, and may it be read?' }))
    request.onabort = () => reject(new DOMException('stopped', 'AbortError'))
    request.onload = () => {
      let line = {}
      try { line = JSON.parse(request.responseText) } catch { /* told below */ }
      if (request.status === 200) resolve(line)
      else reject(new APIError(line))
    }
    signal?.addEventListener('abort', () => request.abort())
    request.send(file)
  })
}

// follow calls on[event](data) for each event, and on.line(connected) when the connection
// comes and goes. The browser connects again by itself, unless it was refused.
export function follow(on) {
  const source = new EventSource(root + 'events')
  source.onopen = () => on.line(true)
  source.onerror = () => {
    on.line(false)
    if (source.readyState !== EventSource.CLOSED) return
    setTimeout(() => follow(on), 2000)
    ask('id').catch(() => {})
  }
  for (const name of ['hello', 'transfers', 'shares', 'neighbor', 'groups', 'pins', 'links']) {
    source.addEventListener(name, event => on[name]?.(JSON.parse(event.data)))
  }
}
