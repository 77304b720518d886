// The addon imports Node-API from "node.exe". This hook replaces that name by the running program, which may have another name.
#ifdef _WIN32
#    ifndef WIN32_LEAN_AND_MEAN
#        define WIN32_LEAN_AND_MEAN
#    endif
#    include <windows.h>

#    include <delayimp.h>
#    include <string.h>

static FARPROC WINAPI answerWithProgram(unsigned int event, DelayLoadInfo * info) {
    if (event == dliNotePreLoadLibrary && _stricmp(info->szDll, "node.exe") == 0) {
        return (FARPROC) GetModuleHandleW(nullptr);
    }
    return nullptr;
}

decltype(__pfnDliNotifyHook2) __pfnDliNotifyHook2 = answerWithProgram;
#endif
