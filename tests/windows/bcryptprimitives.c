/* Random bytes as every program of Rust asks for them on Windows. Wine 8 has no
 * such library, and a program that needs it ends there without a word. For the
 * tests' own prefix only; Windows brings its own. */

#include <windows.h>

/* RtlGenRandom, by the name under which advapi32 has it. */
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

#define PIECE 0x10000000u

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
    while (length > 0) {
        ULONG piece = length > PIECE ? PIECE : (ULONG)length;
        if (!SystemFunction036(buffer, piece))
            return FALSE;
        buffer += piece;
        length -= piece;
    }
    return TRUE;
}
