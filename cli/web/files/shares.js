// What is shared from here, and sharing more of it.

import { list, one, post, remove, upload } from './api.js'
import { $, act, alarm, ask, button, h, open, opener, pages, setText, show, soon, tell } from './dom.js'
import { address, serving } from './links.js'
import { ago, count, size, visible } from './text.js'

let folder = ''

// known tells who this peer is, once that is known.
export function known(peer) { folder = peer.folder }

export function start() {
  $('choose-files').addEventListener('click', () => $('files').click())
  $('choose-folder').addEventListener('click', () => $('folder').click())
  for (const id of ['files', 'folder']) {
    $(id).addEventListener('change', event => {
      const chosen = [...event.target.files].map(file => ({ file, path: file.webkitRelativePath || file.name }))
      event.target.value = ''
      take(chosen)
    })
  }
  startDrop()
  $('share-path').addEventListener('submit', act(sharePath))
  $('shares-filter').addEventListener('input', soon(draw))
}

function startDrop() {
  let inside = 0
  const over = on => document.body.classList.toggle('over', on)
  const hasFiles = event => event.dataTransfer?.types.includes('Files')
  document.addEventListener('dragenter', event => { if (hasFiles(event)) over(++inside > 0) })
  document.addEventListener('dragleave', event => { if (hasFiles(event)) over(--inside > 0) })
  document.addEventListener('dragover', event => { if (hasFiles(event)) event.preventDefault() })
  document.addEventListener('drop', async event => {
    if (!hasFiles(event)) return
    event.preventDefault()
    over(inside = 0)
    location.hash = 'shares'
    // The entries are gone once this listener has returned: ask for all of them first.
    const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry()).filter(Boolean)
    const files = []
    try {
      for (const entry of entries) await walk(entry, entry.name, files)
      await take(files)
    } catch (error) {
      alarm(error)
    }
  })
}

// walk collects the files of what was dropped.
async function walk(entry, path, files) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject))
    files.push({ file, path })
    return
  }
  const reader = entry.createReader()
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))
    if (!some.length) return
    for (const child of some) await walk(child, path + '/' + child.name, files)
  }
}

// take uploads files one after the other, and shares each, or the folder that they are in.
async function take(files) {
  const folders = Map.groupBy(files.filter(f => f.path.includes('/')), f => f.path.split('/')[0])
  for (const f of files) if (!f.path.includes('/')) await run(f.path, [f], f => ({ name: f.path }))
  for (const [name, inside] of folders) {
    const batch = [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, '0')).join('')
    await run(name, inside, f => ({ path: f.path, batch }))
  }
}

async function run(name, files, values) {
  const stop = new AbortController()
  const row = working(visible(name), () => stop.abort())
  const total = files.reduce((sum, f) => sum + f.file.size, 0)
  let before = 0
  try {
    let root
    for (const f of files) {
      const done = await upload(f.file, values(f), sent => row.at('Copying', before + sent, total), stop.signal)
      root = done.root
      before += f.file.size
    }
    if (root) await add({ path: root }, row)
  } catch (error) {
    alarm(error)
  }
  row.end()
}

async function sharePath(event) {
  const form = event.target
  const scope = form.scope.value
  const row = working(visible(form.path.value), null)
  try {
    await add({ path: form.path.value.trim(), ...(scope && { scope: { [scope]: true } }), ...(form.watch.checked && { watch: true }) }, row)
    form.path.value = ''
  } finally {
    row.end()
  }
}

async function add(request, row) {
  const added = await post('shares', request, line => {
    if (line.event === 'progress') row.at('Reading', line.done, line.total)
    if (line.event === 'warning') tell(line.message)
  })
  tell(visible(added.name) + ' is shared')
}

// working is a row with a bar for what is on its way to be shared.
function working(name, stop) {
  const bar = h('progress', { max: 1, 'aria-label': name })
  const text = h('p', { class: 'meta' }, 'Beginning…')
  const element = h('li', {}, h('div', { class: 'item' },
    h('div', { class: 'text' }, h('h3', {}, h('bdi', {}, name)), bar, text),
    stop && h('div', { class: 'acts' }, button('Cancel', 'Cancel ' + name, async () => stop()))))
  $('sharing').append(element)
  return {
    at(what, done, total) {
      if (total) bar.value = done / total
      setText(text, what + ': ' + size(done) + (total ? ' of ' + size(total) : ''))
    },
    end: () => element.remove(),
  }
}

let all = [] // the newest first
let loading, read

// load reads the list of shares anew. Another reading that is on its way is broken off.
async function load() {
  loading?.abort()
  const mine = loading = new AbortController()
  const rows = []
  try {
    for await (const share of list('shares', {}, mine.signal)) rows.push(share)
  } catch (error) {
    alarm(error)
    return
  }
  all = rows.reverse()
  read = true
  draw()
}

function draw() {
  if (!read) return
  const filter = $('shares-filter').value.trim().toLowerCase()
  const bytes = all.reduce((sum, share) => sum + share.size, 0)
  setText($('shares-n'), all.length ? count(all.length, 'share', 'shares') + ', ' + size(bytes) : '')
  pages($('shares-list'), filter ? all.filter(share => share.name.toLowerCase().includes(filter)) : all,
    share => share.path + ' ' + share.name, makeRow,
    filter ? 'Nothing here has that in its name.' : 'Nothing yet. What you share lies where it is, and others get it from here.', draw)
}

// The first event comes with the connection, and so the first list: it is read once.
let told = false
const reload = soon(() => { if (!$('shares').hidden) load() })
export function shown() { if (told) load() }
export function changed() { told = true; reload() }

const states = { shared: '', modified: 'changed since: not sent any more', missing: 'not there any more' }

function makeRow(share) {
  const name = visible(share.name)
  const meta = h('p', { class: 'meta' })
  const watched = h('span', { class: 'tag' })
  const link = opener(share.id, share.name, name)
  const element = h('li', {}, h('div', { class: 'item' },
    h('div', { class: 'text' }, h('h3', {}, h('bdi', {}, name), watched), meta),
    h('div', { class: 'acts' }, link,
      button('Link', 'Link and QR code of ' + name, () => showLink(share)),
      share.kind === 'dir' && button('Look inside', 'Look inside ' + name, () => showInside(share.id, name)),
      button('Stop', 'Stop sharing ' + name, () => stopSharing(share, name)))))
  return {
    element,
    update(now) {
      share = now
      open(link, share.id, share.name, name)
      const watch = share.watch
      watched.hidden = !watch
      setText(watched, !watch ? '' : watch.problem ? 'not kept up to date' : 'kept up to date')
      watched.className = watch?.problem ? 'tag warn' : 'tag ok'
      const wrong = [states[share.state] ?? share.state, watch?.problem].filter(Boolean).join(' · ')
      setText(meta, [share.kind === 'dir' ? count(share.files ?? 0, 'file', 'files') : '', size(share.size),
        share.added ? ago(share.added) : '', visible(share.path), wrong].filter(Boolean).join(' · '))
      meta.classList.toggle('bad', wrong !== '')
    },
  }
}

async function stopSharing(share, name) {
  if (!await ask('Stop sharing ' + name + '?', 'The file stays where it is.', 'Stop sharing')) return
  await remove('shares', { what: share.path })
  tell(name + ' is not shared any more')
}

async function showLink(share) {
  const { link } = await one('link', { what: share.path })
  show(visible(share.name), h('p', { class: 'quiet' }, 'Whoever runs p2pshare gets it with this link, and checks that it is this content.'),
    address(link, 'Link'), h('p', { class: 'mono' }, share.id),
    h('details', {}, h('summary', {}, 'For people without p2pshare'),
      h('p', { class: 'quiet' }, 'A link for a browser on the same network. It ends by itself, and can be stopped before.'), serving(share, folder)))
}

const entriesMax = 500

// showInside lists what is inside a directory, here or elsewhere.
export async function showInside(what, name, peers) {
  const rows = h('ul', { class: 'inner', 'aria-label': 'Inside' })
  show(name, rows)
  let n = 0
  for await (const entry of list('entries', { what, ...(peers && { peer: peers }) })) {
    if (++n > entriesMax) {
      rows.append(h('li', { class: 'quiet' }, 'and more'))
      return
    }
    rows.append(h('li', {}, h('bdi', {}, visible(entry.path)), ' ', h('span', { class: 'quiet' }, entry.kind === 'dir' ? '' : size(entry.size))))
  }
  if (!n) rows.append(h('li', { class: 'quiet' }, 'Nothing is in it.'))
}
