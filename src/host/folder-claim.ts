/**
 * At most one living process owns a data folder.
 *
 * The claim is an exclusive transaction on an SQLite file, which is a lock of the operating system: it ends with the process
 * however that ends, so no stale claim can be left behind, no process id is ever compared, two containers with one volume
 * see each other, and of two starters one wins. A note beside it tells people who holds it.
 */
import { Database } from 'bun:sqlite'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describeError, MillraceError } from '../contracts/errors.ts'

export interface Owner {
  readonly pid: number
  readonly role: string
}

const CLAIM_FILE = 'owner.claim'
const NOTE_FILE = 'owner.json'

export class FolderClaim {
  readonly #database: Database

  private constructor(database: Database) {
    this.#database = database
  }

  /**
   * Claims the folder, or answers undefined when somebody else (this process included) holds it.
   *
   * @throws MillraceError `config.invalid` when the folder can't be written
   */
  static take(folder: string, owner: Owner): FolderClaim | undefined {
    let database: Database | undefined
    try {
      database = new Database(join(folder, CLAIM_FILE))
      database.run('PRAGMA busy_timeout = 0')
      database.run('BEGIN EXCLUSIVE')
      writeFileSync(join(folder, NOTE_FILE), `${JSON.stringify(owner)}\n`, { mode: 0o600 })
      return new FolderClaim(database)
    } catch (cause) {
      database?.close()
      if (isBusy(cause)) return undefined
      throw new MillraceError(
        'config.invalid',
        `The data folder ${folder} can't be written: ${describeError(cause)}. Free space or give rights, or set MILLRACE_DATA_DIR.`,
        { cause },
      )
    }
  }

  release(): void {
    this.#database.close()
  }
}

/** Who holds the folder, as far as the note tells. */
export function readOwner(folder: string): Owner | undefined {
  try {
    const note: unknown = JSON.parse(readFileSync(join(folder, NOTE_FILE), 'utf8'))
    if (typeof note !== 'object' || note === null || !('pid' in note) || !('role' in note)) return undefined
    return { pid: Number(note.pid), role: String(note.role) }
  } catch {
    return undefined
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY')
}
