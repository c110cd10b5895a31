/** Which script a request runs: by the digest of an EVALSHA, or the text of an EVAL. The sources are read as plain files. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const FOLDER = join(import.meta.dir, '../../src/redis/lua')

const names: ReadonlyMap<string, string> = new Map(
  readdirSync(FOLDER)
    .filter((file) => file.endsWith('.lua'))
    .map((file) => [sha1(readFileSync(join(FOLDER, file), 'utf8')), file.replace('.lua', '')]),
)

/** The script's name, else the command in lower case: `settle`, `xreadgroup`. */
export function requestName(words: readonly string[]): string {
  const command = (words[0] ?? '').toLowerCase()
  const what = words[1] ?? ''
  if (command === 'evalsha') return names.get(what) ?? command
  if (command === 'eval') return names.get(sha1(Buffer.from(what, 'latin1').toString('utf8'))) ?? command
  return command
}

function sha1(text: string): string {
  return createHash('sha1').update(text).digest('hex')
}
