// Links that are served to people on the local network who have no p2pshare.

import { post, remove } from './api.js'
import { $, act, button, h, keyed, setText, show, tell } from './dom.js'
import { count, size, until, visible } from './text.js'

let served = []

export function update({ links }) {
  served = links
  draw()
}

// Time left is told anew now and then.
export function start() { setInterval(draw, 20000) }

function draw() {
  $('links').hidden = !served.length
  keyed($('links-list'), served, l => l.url, makeRow)
}

function makeRow(l) {
  const name = visible(l.name)
  const meta = h('p', { class: 'meta' })
  return {
    element: h('li', {}, h('div', { class: 'item' },
      h('div', { class: 'text' }, h('h3', {}, h('bdi', {}, name)), meta),
      h('div', { class: 'acts' },
        button('Show', 'Show the served link of ' + name, async () => showServed(l)),
        button('Stop', 'Stop serving the link of ' + name, async () => {
          await remove('serve-link', { url: l.url })
          tell('The link of ' + name + ' is served no longer')
        })))),
    update(now) {
      l = now
      setText(meta, [l.url.replace(/^http:\/\/|\/#.*$/g, ''), l.size >= 0 ? size(l.size) : '', until(l.expires),
        l.receive ? 'receives into ' + visible(l.receive) : '', l.received ? count(l.received, 'file', 'files') + ' came' : ''].filter(Boolean).join(' · '))
    },
  }
}

function showServed(l) {
  show(visible(l.name), h('p', { class: 'quiet' }, 'Whoever has this link and is on this network gets it with a browser' + (l.receive ? ', and can send files here' : '') +
    ': ' + until(l.expires) + '. It is plain HTTP: whoever can listen on the network can read it.'), address(l.url, 'Link for a browser'))
}

const qrMax = 1200 // bytes that a code holds and a phone still reads

// address shows a link, to be copied or scanned.
export function address(link, label) {
  const field = h('input', { readonly: true, value: link, 'aria-label': label, onfocus: event => event.target.select() })
  return [
    h('div', { class: 'row' }, h('div', { class: 'grow' }, field),
      button('Copy', 'Copy the link', async () => { await navigator.clipboard.writeText(link); tell('The link is copied') })),
    link.length <= qrMax && h('img', { class: 'qr', alt: 'QR code of the link', src: '/api/v1/qr?text=' + encodeURIComponent(link) }),
  ]
}

const times = [[600, '10 minutes'], [3600, '1 hour'], [86400, '1 day'], [7 * 86400, '1 week']]

// serving is the form that has a share served to people without p2pshare.
export function serving(share, folder) {
  const receive = h('input', { type: 'checkbox', name: 'receive' })
  const into = h('label', { class: 'grow', hidden: true }, 'Save what they send in', h('input', { name: 'dir', value: folder, autocomplete: 'off', spellcheck: 'false' }))
  receive.addEventListener('change', () => { into.hidden = !receive.checked })
  return h('form', { class: 'row', id: 'serve', onsubmit: act(async event => {
    const form = event.target
    const link = await post('serve-link', { what: share.id, expire_s: Number(form.expire.value), detached: true,
      ...(form.address.value.trim() && { address: form.address.value.trim() }),
      ...(receive.checked && { receive: form.dir.value.trim() }) })
    showServed(link)
  }) },
  h('label', { class: 'grow' }, 'For how long', h('select', { name: 'expire' }, times.map(([s, text]) => h('option', { value: s, selected: s === 3600 }, text)))),
  h('label', { class: 'grow' }, 'At this address of this computer', h('input', { name: 'address', autocomplete: 'off', spellcheck: 'false', placeholder: 'the one on the local network' })),
  h('label', { class: 'check' }, receive, 'Let them send files, too'), into,
  h('button', { class: 'main' }, 'Serve a link'))
}
