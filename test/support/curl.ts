/** Stands in for curl on a machine that has none: the options that the README uses, and no others. */
import { parseArgs } from 'node:util'

const { values, positionals } = parseArgs({
  args: Bun.argv.slice(2),
  allowPositionals: true,
  options: {
    silent: { type: 'boolean', short: 's' },
    header: { type: 'string', short: 'H', multiple: true },
    data: { type: 'string', short: 'd' },
  },
})
const [url] = positionals
if (url === undefined || positionals.length > 1) throw new Error(`one URL, not ${positionals.length}`)
const headers = (values.header ?? []).map((line): [string, string] => {
  const colon = line.indexOf(':')
  return [line.slice(0, colon), line.slice(colon + 1).trim()]
})
const body = values.data
const answer = await fetch(url, body === undefined ? { headers } : { method: 'POST', headers, body })
await Bun.write(Bun.stdout, await answer.text())
