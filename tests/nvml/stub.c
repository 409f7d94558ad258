/* A libnvidia-ml.so.1 that tells what a text file says, for tests.
 *
 * The file is named by RBEE_NVML_STUB, else /etc/nvml-stub.conf. Its lines, in any order:
 *
 *     driver VERSION
 *     card PCI_ADDRESS BYTES UUID NAME UP TO THE END OF THE LINE
 *     load CARD PERCENT USED_BYTES CELSIUS MILLIWATTS
 *     process CARD PID BYTES      computes on a card until it ends; BYTES -1 is not available
 *     drawing CARD PID BYTES      the same, of a process that draws
 *     stuck CARD PID BYTES        computes on a card, as the driver says, though it may have ended
 *     fail FUNCTION CARD CODE     FUNCTION answers CODE; CARD is an index, or * for any or none
 *     hang FUNCTION CARD          FUNCTION never comes back
 *     hang FUNCTION CARD FIFO     ... until somebody opens FIFO for writing
 *
 * FUNCTION is a name without 'nvml' and without '_v2', such as Init or DeviceGetName. Without
 * a file, nvmlInit answers as where there is a library and no driver.
 *
 * Driver and cards are read by the nvmlInit that opens the library, as NVIDIA's looks for them
 * but then; what else a file says counts as soon as it is put in the place of the other, as does
 * the number of its cards. A card without 'load' uses no memory but that of its processes, and answers
 * the rest with NVML_ERROR_NOT_SUPPORTED. What processes hold comes on top of USED_BYTES.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };
enum { MOST_CARDS = 512, MOST_RULES = 512, MOST_PROCESSES = 512, ANY = -1 };

struct card {
    char pci[32], uuid[96], name[1024];
    unsigned long long bytes;
};

struct load {
    unsigned percent, celsius, milliwatts;
    unsigned long long used;
    int is_told;
};

struct rule {
    char function[64], fifo[256];
    int card, code, is_hang;
};

struct process {
    int card, pid;
    long long bytes;
    char kind; /* the first letter of its line */
};

struct process_info { /* nvmlProcessInfo_v2_t */
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

struct pci_info { /* nvmlPciInfo_t */
    char legacy_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};

struct memory { /* nvmlMemory_t */
    unsigned long long total, free, used;
};

struct utilization { /* nvmlUtilization_t */
    unsigned gpu, memory;
};

static struct card cards[MOST_CARDS];
static struct load loads[MOST_CARDS];
static struct rule rules[MOST_RULES];
static struct process processes[MOST_PROCESSES];
static int card_count, told_count, rule_count, process_count, initialised;
static char driver[81];
static struct stat known;
static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER; /* several cards are asked at once */

static void read_rule(const char *line, int is_hang)
{
    struct rule *rule = &rules[rule_count];
    char card[16];
    memset(rule, 0, sizeof *rule);
    rule->is_hang = is_hang;
    int fields = is_hang ? sscanf(line, "%*s %63s %15s %255s", rule->function, card, rule->fifo)
                         : sscanf(line, "%*s %63s %15s %d", rule->function, card, &rule->code);
    if (fields < 2 || (!is_hang && fields < 3) || rule_count == MOST_RULES - 1)
        abort(); /* a test with a typing error must not pass */
    rule->card = strcmp(card, "*") ? atoi(card) : ANY;
    rule_count++;
}

static void read_card(const char *line)
{
    struct card *card = &cards[card_count];
    if (card_count == MOST_CARDS - 1 ||
        sscanf(line, "card %31s %llu %95s %1023[^\n]", card->pci, &card->bytes, card->uuid, card->name) != 4)
        abort();
    card_count++;
}

static void read_load(const char *line)
{
    struct load load = {.is_told = 1};
    int number;
    if (sscanf(line, "load %d %u %llu %u %u", &number, &load.percent, &load.used, &load.celsius,
               &load.milliwatts) != 5 || number < 0 || number >= MOST_CARDS)
        abort();
    loads[number] = load;
}

static void read_process(const char *line)
{
    struct process *process = &processes[process_count];
    process->kind = line[0];
    if (process_count == MOST_PROCESSES - 1 ||
        sscanf(line, "%*s %d %d %lld", &process->card, &process->pid, &process->bytes) != 3)
        abort();
    process_count++;
}

/* As the hive may not see it in /proc: a process of somebody else answers a signal with EPERM. */
static int is_on(const struct process *process, int card)
{
    return process->card == card && (process->kind == 's' || !kill(process->pid, 0) || errno == EPERM);
}

static int read_file(int is_opening)
{
    const char *path = getenv("RBEE_NVML_STUB");
    FILE *file = fopen(path ? path : "/etc/nvml-stub.conf", "r");
    char line[2048];
    if (!file)
        return DRIVER_NOT_LOADED;
    fstat(fileno(file), &known);
    told_count = rule_count = process_count = 0;
    memset(loads, 0, sizeof loads);
    if (is_opening) {
        card_count = 0;
        strcpy(driver, "0");
    }
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "driver ", 7)) {
            if (is_opening)
                sscanf(line, "driver %80[^\n]", driver);
        } else if (!strncmp(line, "card ", 5)) {
            told_count++;
            if (is_opening)
                read_card(line);
        } else if (!strncmp(line, "load ", 5))
            read_load(line);
        else if (!strncmp(line, "fail ", 5) || !strncmp(line, "hang ", 5))
            read_rule(line, line[0] == 'h');
        else if (!strncmp(line, "process ", 8) || !strncmp(line, "drawing ", 8) || !strncmp(line, "stuck ", 6))
            read_process(line);
        else if (line[0] != '\n' && line[0] != '#')
            abort();
    }
    fclose(file);
    return SUCCESS;
}

/* Read the file again if another one is in its place. */
static void catch_up(void)
{
    const char *path = getenv("RBEE_NVML_STUB");
    struct stat now;
    if (stat(path ? path : "/etc/nvml-stub.conf", &now))
        return;
    pthread_mutex_lock(&reading);
    if (now.st_ino != known.st_ino || memcmp(&now.st_ctim, &known.st_ctim, sizeof now.st_ctim))
        read_file(0);
    pthread_mutex_unlock(&reading);
}

/* What the file has this call do: its answer, after hanging if it must. */
static int meet(const char *function, int card)
{
    for (int i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->function, function) || (rule->card != ANY && rule->card != card))
            continue;
        if (!rule->is_hang)
            return rule->code;
        if (!rule->fifo[0])
            for (;;)
                pause();
        int fifo = open(rule->fifo, O_RDONLY); /* comes back when a writer comes */
        if (fifo >= 0)
            close(fifo);
    }
    return SUCCESS;
}

static int enter(const char *function, int card)
{
    if (!initialised)
        return UNINITIALIZED;
    catch_up();
    return meet(function, card);
}

static int say(char *buffer, unsigned length, const char *text)
{
    if (strlen(text) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return SUCCESS;
}

static int number(const struct card *card)
{
    return (int)(card - cards);
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int code = initialised ? SUCCESS : read_file(1);
    if (code == SUCCESS)
        code = meet("Init", ANY);
    if (code == SUCCESS)
        initialised++;
    return code;
}

int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

int nvmlShutdown(void)
{
    int code = enter("Shutdown", ANY);
    if (code == SUCCESS)
        initialised--;
    return code;
}

const char *nvmlErrorString(int code)
{
    static char text[64];
    snprintf(text, sizeof text, "stub error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    int code = enter("SystemGetDriverVersion", ANY);
    return code ? code : say(version, length, driver);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int code = enter("DeviceGetCount", ANY);
    *count = told_count;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct card **handle)
{
    int code = enter("DeviceGetHandleByIndex", (int)index);
    if (code)
        return code;
    if (index >= (unsigned)card_count)
        return INVALID_ARGUMENT;
    *handle = &cards[index];
    return SUCCESS;
}

int nvmlDeviceGetName(struct card *card, char *name, unsigned length)
{
    int code = enter("DeviceGetName", number(card));
    return code ? code : say(name, length, card->name);
}

int nvmlDeviceGetUUID(struct card *card, char *uuid, unsigned length)
{
    int code = enter("DeviceGetUUID", number(card));
    return code ? code : say(uuid, length, card->uuid);
}

int nvmlDeviceGetPciInfo_v3(struct card *card, struct pci_info *info)
{
    int code = enter("DeviceGetPciInfo", number(card));
    if (code)
        return code;
    memset(info, 0, sizeof *info);
    sscanf(card->pci, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    return say(info->id, sizeof info->id, card->pci);
}

int nvmlDeviceGetMemoryInfo(struct card *card, struct memory *memory)
{
    int code = enter("DeviceGetMemoryInfo", number(card));
    if (code)
        return code;
    memory->total = card->bytes;
    memory->used = loads[number(card)].used;
    for (int i = 0; i < process_count; i++)
        if (is_on(&processes[i], number(card)) && processes[i].bytes > 0)
            memory->used += processes[i].bytes;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

static int list(const char *function, struct card *card, int is_drawing, unsigned *count,
                struct process_info *infos)
{
    int code = enter(function, number(card));
    unsigned room = *count, found = 0;
    if (code)
        return code;
    for (int i = 0; i < process_count; i++) {
        struct process *process = &processes[i];
        if (!is_on(process, number(card)) || (process->kind == 'd') != is_drawing)
            continue;
        if (infos && found < room)
            infos[found] = (struct process_info){process->pid, (unsigned long long)process->bytes, 0, 0};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct card *card, unsigned *count, struct process_info *infos)
{
    return list("DeviceGetComputeRunningProcesses", card, 0, count, infos);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct card *card, unsigned *count, struct process_info *infos)
{
    return list("DeviceGetGraphicsRunningProcesses", card, 1, count, infos);
}

static int enter_load(const char *function, struct card *card)
{
    int code = enter(function, number(card));
    return code ? code : loads[number(card)].is_told ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetUtilizationRates(struct card *card, struct utilization *utilization)
{
    int code = enter_load("DeviceGetUtilizationRates", card);
    utilization->gpu = loads[number(card)].percent;
    utilization->memory = 0;
    return code;
}

int nvmlDeviceGetTemperature(struct card *card, int sensor, unsigned *celsius)
{
    int code = enter_load("DeviceGetTemperature", card);
    *celsius = loads[number(card)].celsius;
    return sensor ? INVALID_ARGUMENT : code;
}

int nvmlDeviceGetPowerUsage(struct card *card, unsigned *milliwatts)
{
    int code = enter_load("DeviceGetPowerUsage", card);
    *milliwatts = loads[number(card)].milliwatts;
    return code;
}
